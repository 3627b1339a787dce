"""What services refuse, in Portuguese: their sentences are English, as the API's clients read them.

A sentence that is not here stays as it is, and the page marks it as English for screen readers. Fields have
the names that their labels have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

FIELDS: Mapping[str, str] = {
    "name": "nome", "display_name": "nome de exibição", "time_zone": "fuso horário", "latitude": "latitude",
    "longitude": "longitude", "code": "código", "mac": "MAC", "capacity": "capacidade",
    "heartbeat_seconds": "heartbeat", "modbus_register": "registrador Modbus",
    "modbus_slave": "endereço Modbus", "alarm_day": "limite de consumo diário",
    "alarm_month": "limite de consumo mensal", "limit_low": "limite inferior",
    "limit_high": "limite superior", "unit": "unidade", "kind": "tipo", "email": "e-mail",
    "serial": "número de série", "model": "modelo", "firmware": "firmware", "description": "descrição",
    "site_id": "local", "gateway_id": "gateway", "profile_id": "perfil",
    "retention_days": "guardar dados por",
    "label": "identificação do lote", "scope": "permissões", "topic": "tópico", "low": "limite inferior",
    "high": "limite superior", "minimum": "mínimo", "maximum": "máximo", "ack_seconds": "responder em até",
    "max_series": "máximo de séries", "requests_per_second": "requisições por segundo",
    "messages_per_second": "mensagens por segundo", "points_per_second": "pontos por segundo",
    "storage_gigabytes": "armazenamento máximo",
    "from": "de", "to": "até", "span": "período", "site": "local", "device": "dispositivo",
    "status": "estado",
    "reason": "motivo", "search": "busca", "text": "texto", "points": "pontos", "commands": "comandos",
    "format": "formato", "metadata": "metadados", "state": "estado", "role": "perfil de acesso",
    "recipient_id": "destinatário", "conversation_id": "conversa", "content": "mensagem",
    "at": "quando", "final_reading": "última leitura do antigo", "start_reading": "primeira leitura do novo",
    "note": "observação",
}  # fmt: skip

# What follows a field's name.
OF_A_FIELD: tuple[tuple[str, str], ...] = (
    (r"give (\d+) to (\d+) characters; these are (\d+)\.", "use de {0} a {1} caracteres; há {2}."),
    (r"control characters are not allowed\.", "caracteres de controle não são permitidos."),
    (r"NUL characters (?:are not allowed|cannot be stored)\.", "caracteres NUL não são permitidos."),
    (r"that is no valid Unicode\.", "o texto não é Unicode válido."),
    (r"'/', '\+', '#', tabs and line breaks cannot stand in a topic's level\.",
     "'/', '+', '#', tabulação e quebra de linha não podem fazer parte de um tópico."),
    (r"a name cannot begin with '\$'\.", "não pode começar com '$'."),
    (r"write it as aa:bb:cc:dd:ee:ff\.", "escreva no formato aa:bb:cc:dd:ee:ff."),
    (r"give a whole number from (\S+) to (\S+?)\.", "informe um número inteiro de {0} a {1}."),
    (r"a whole number from (\S+) to (\S+), or empty\.",
     "informe um número inteiro de {0} a {1}, ou deixe vazio."),
    (r"a number above 0, at most (\S+), or empty\.",
     "informe um número acima de 0, no máximo {0}, ou deixe vazio."),
    (r"give a whole number\.", "informe um número inteiro."),
    (r"give a number from 0 to 99999999999\.9999 with at most four decimals\.",
     "informe um número de 0 a 99999999999,9999, com até quatro casas decimais."),
    (r"give a number\.", "informe um número."),
    (r"not a number\.", "não é um número."),
    (r"(.+) is no (?:whole )?number\.", "{0} não é um número válido."),
    (r"give degrees from (\S+) to (\S+?)\.", "informe graus de {0} a {1}."),
    (r"(.+) is no known time zone\.", "{0} não é um fuso horário conhecido, como America/Sao_Paulo."),
    (r"(?:use |give )?one of (.+)\.", "use um destes valores: {0}."),
    (r"a meter needs both\.", "o medidor precisa dos dois."),
    (r"there is no such (?:site|gateway|profile|device|table)\.", "não encontrado."),
    (r"another [\w ]+ has it\.", "já está em uso."),
    (r"the device has a point of this name\.", "o dispositivo já tem um ponto com este nome."),
    (r"it is registered already\.", "já está cadastrado."),
    (r"this MAC is registered already, as (.+)\.", "este MAC já está cadastrado como {0}."),
    (r"that is no e-mail address\.", "não é um e-mail válido."),
    (r"the low limit is above the high one\.", "o limite inferior está acima do superior."),
    (r"it is needed\.", "é obrigatório."),
    (r"at least (\S+?)\.", "no mínimo {0}."),
    (r"at most (\d+) characters\.", "no máximo {0} caracteres."),
    (r"at most (\S+?)\.", "no máximo {0}."),
    (r"give true or false\.", "informe ligado ou desligado."),
    (r"give a text\.", "informe um texto."),
    (r"(?:name|choose) (?:one|at least one)\.", "escolha ao menos um."),
    (r"a name is there twice\.", "há um nome repetido."),
    (r"begin with a letter; letters, digits, '_', '\.', '-'; at most 64\.",
     "comece com letra; use letras, números, '_', '.' e '-'; no máximo 64."),
    (r"write the day as 2026-01-31\.", "escreva o dia como 2026-01-31."),
    (r"the span is empty; `to` must not be before `from`\.",
     "o período está vazio: o fim vem antes do início."),
    (r"at most ten years\.", "no máximo dez anos."),
    (r"1 to 100 characters\.", "use de 1 a 100 caracteres."),
    (r"1 to 100 letters, digits, dots, dashes and underscores\.",
     "use de 1 a 100 letras, números, pontos, hífens e sublinhados."),
    (r"a whole number of days, or empty for ever\.",
     "informe dias inteiros, ou deixe vazio para guardar sempre."),
    (r"write something\.", "escreva alguma coisa."),
    (r"the samples of that hour are gone, and what was made of them stays\.",
     "as medições dessa hora já foram descartadas, e o que foi calculado delas fica."),
    (r"give the day and the time\.", "informe o dia e a hora."),
    (r"the clocks skipped that hour in (.+)\.", "essa hora não existiu em {0} (início do horário de verão)."),
    (r"give an instant between 1971 and now\.", "informe um instante entre 1971 e agora."),
    (r"the dial showed (\S+) before that; at the end it cannot have shown less\.",
     "antes disso o mostrador indicava {0}; no fim não pode ter indicado menos."),
    (r"the first reading after that is (\S+); the new dial cannot have begun above\.",
     "a primeira leitura depois disso é {0}; o mostrador novo não pode ter começado acima."),
    (r"a replacement of this point at that instant is noted already\.",
     "já há uma troca deste ponto registrada nesse instante."),
    (r"at most (\d+) characters, none of them NUL\.", "no máximo {0} caracteres, sem NUL."),
)  # fmt: skip

WHOLE: tuple[tuple[str, str], ...] = (
    (r"There is no such conversation that waits for somebody\.",
     "Esta conversa não está à espera de atendimento."),
    (r"There is no such (?:.+)\.", "Não encontrado."),
    (r"There is (?:nothing|no page) at this address\.", "Não há nada neste endereço."),
    (r"There is no dead letter (\d+)\..*", "A mensagem {0} não existe."),
    (r"The database does not answer\. Try again in a few seconds\.",
     "O banco de dados não responde. Tente de novo em alguns segundos."),
    (r"Something went wrong on our side\. Tell us the request id\.",
     "Houve uma falha do nosso lado. Informe o número da requisição ao suporte."),
    (r"The gateway still has devices; move or delete them first\.",
     "O gateway ainda tem dispositivos; mova ou exclua antes."),
    (r"The site still has (?:devices|gateways); move them first\.",
     "O local ainda tem equipamentos; mova antes."),
    (
        r"The device has (?:points|measured|answered commands|told of events);"
        r" set it to inactive to keep its history\.",
        "O dispositivo tem histórico; em vez de excluir, marque como inativo.",
    ),
    (
        r"The gateway has had certificates, whose record stays\.",
        "O gateway já teve certificados, e esse registro é mantido.",
    ),
    (r"The point has samples, which stay\.", "O ponto tem medições, que são mantidas."),
    (r"Devices still use this profile\.", "Há dispositivos usando este perfil."),
    (r"The profile is at version (\d+), not (\d+); look at it again\.",
     "O perfil já está na versão {0}, e você editou a {1}. Recarregue a página."),
    (r"The profile's points would exceed the account's limit of series by (\d+)\.",
     "Os pontos do perfil passariam do limite de séries da conta em {0}."),
    (r"A tenant keeps at least one owner\. Make another one first\.",
     "A conta precisa de ao menos um proprietário. Defina outro antes."),
    (r"Only an owner makes, changes or removes owners\.",
     "Só um proprietário pode definir ou remover proprietários."),
    (r"There is no certificate authority yet\..*",
     "Ainda não há autoridade certificadora (caudal pki init)."),
    (r"The gateway has a certificate in force; revoke it first\.",
     "O gateway já tem certificado válido; revogue antes."),
    (r"The registration is (?:.+) already\.", "Este pedido já foi decidido."),
    (r"The page is out of date: reload it and try again\.",
     "A página está desatualizada: recarregue e tente de novo."),
    (r"The device is (?:not )?in quarantine.*", "O estado de quarentena do dispositivo não permite isso."),
    (r"There is a tenant (.+) already\.", "Já existe uma conta {0}."),
    (r"Only a failed or unknown delivery can be sent again\.",
     "Só é possível reenviar entregas que falharam ou sem confirmação."),
    (r"Somebody has joined that conversation already\.", "Esta conversa já foi atendida por outra pessoa."),
    (r"Only a counter has a dial that is replaced; say first that this point is one\.",
     "Só um contador tem mostrador a trocar; defina antes o tipo deste ponto."),
    (r"The sandbox does not answer\. Is it running\?", "O simulador não responde. Ele está em execução?"),
    (r"This (?:link|invitation) has been used or is too old\. Ask for another\.",
     "Este link já foi usado ou expirou. Peça outro."),
    (r"The password must have six characters or more\.", "A senha deve ter pelo menos seis caracteres."),
    (r"Give the password of your account to join\.", "Informe a senha do seu cadastro para aceitar."),
    (r"Choose a password to join\.", "Escolha uma senha para aceitar."),
    (r"The user name has 3 to 50 letters, digits and underscores\.",
     "O usuário tem de 3 a 50 letras, números e sublinhados."),
    (r"The cursor is not one of ours\. Begin with the first page\.",
     "Endereço de página inválido. Volte à primeira página."),
    (r"A field that is needed was left empty\.", "Há um campo obrigatório vazio."),
    (r"What is asked contradicts what is there\.", "O pedido contradiz o que já existe."),
    (r"Your role does not allow (\S+)\. Ask an administrator of your tenant\.",
     "Falta a permissão {0}. Fale com um administrador da sua conta."),
)  # fmt: skip

_FIELD = re.compile(r"(?P<fields>[a-z_][\w.\-]*(?:, [a-z_][\w.\-]*)*): (?P<rest>.+)", re.DOTALL)
_OF_A_FIELD = [(re.compile(pattern), words) for pattern, words in OF_A_FIELD]
_WHOLE = [(re.compile(pattern, re.DOTALL), words) for pattern, words in WHOLE]


def portuguese(sentence: str) -> str | None:
    """The sentence in Portuguese; None for one that nobody has translated."""
    for pattern, words in _WHOLE:
        if found := pattern.fullmatch(sentence):
            return words.format(*found.groups())
    split = _FIELD.fullmatch(sentence)
    if split is None:
        return None
    for pattern, words in _OF_A_FIELD:
        if found := pattern.fullmatch(split["rest"]):
            names = ", ".join(FIELDS.get(name, name) for name in split["fields"].split(", "))
            return f"{names[:1].upper()}{names[1:]}: {words.format(*found.groups())}"
    return None
