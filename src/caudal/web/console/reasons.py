"""Why a message could not be stored or delivered, in Portuguese: both keep a code and a sentence in English.

A dead letter's is composed where the fault is found: a field, as the device's payload names it, and what is
wrong with it. Both are taken apart here. What devices and providers sent stays as they sent it. What nobody
translated stays as it is; a test that reads the sources finds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# A sentence is some hundred characters; one that is not is none of ours, and not worth a search.
MOST = 2000

THINGS: Mapping[str, str] = {
    "null": "nulo", "a bool": "um booleano", "a number": "um número", "text": "um texto",
    "a list": "uma lista",
    "an object": "um objeto", "missing": "ausente", "0 or 1": "0 ou 1", "true or false": "true ou false",
    "an ISO 8601 text": "um texto ISO 8601", "Unix seconds": "um número de segundos Unix",
    "seconds": "um número de segundos",
    "a number, bool or text": "um número, booleano ou texto", "characters": "caracteres", "bytes": "bytes",
    "items": "itens", "the payload": "o conteúdo", "the message": "a mensagem", "the array": "a lista",
    "the body": "o corpo", "the field": "o campo",
}  # fmt: skip
BROKEN: Mapping[str, str] = {
    "Expecting value": "esperava-se um valor", "Expecting ',' delimiter": "esperava-se ','",
    "Expecting ':' delimiter": "esperava-se ':'",
    "Expecting property name enclosed in double quotes": "esperava-se um nome entre aspas duplas",
    "Unterminated string starting at": "texto sem aspas no fim", "Extra data": "sobram dados",
    "Invalid control character at": "caractere de controle", "Invalid \\escape": "escape inválido",
    "Invalid \\uXXXX escape": "escape \\u inválido",
    "Illegal trailing comma before end of object": "vírgula sobrando",
    "Illegal trailing comma before end of array": "vírgula sobrando",
}  # fmt: skip

# What is wrong with a time: it follows the time itself.
OF_A_TIME: tuple[tuple[str, str], ...] = (
    (r"is not an ISO 8601 date and time, such as (\S+)", "não é data e hora ISO 8601, como {0}"),
    (r"is at hour 24, which only 24:00:00 may be", "usa a hora 24, que só vale em 24:00:00"),
    (r"is no date and time that exists: .+", "não é uma data e hora que exista"),
    (r"has an offset from UTC of a day or more", "tem diferença de um dia ou mais para UTC"),
    (r"has a second 60 where no leap second can be", "tem um segundo 60 onde não pode haver segundo extra"),
    (r"is outside the years 1 to 9999", "está fora dos anos 1 a 9999"),
)

# What is wrong with a field: it follows the field's name.
OF_A_PART: tuple[tuple[str, str], ...] = (
    *(
        (f"with bt makes a time that {pattern}", f"com bt dá um tempo que {words}")
        for pattern, words in OF_A_TIME
    ),
    *OF_A_TIME,
    (r"is missing, and so are vs, vb, vd and s", "está ausente, assim como vs, vb, vd e s"),
    (r"is (.+), and must be one of (.+)", "é {0}; deve ser um destes: {1}"),
    (r"is (.+), and must be (.+)", "é {0}; deve ser {1}"),
    (r"is (.+), and the topic's is (.+)", "é {0}, e o do tópico é {1}"),
    (r"is (.+), beyond what a double can hold", "é {0}, além do que um número pode guardar"),
    (r"is (.+); versions up to (\d+) are known", "é {0}; são conhecidas versões até {1}"),
    (r"is (.+), no object", "é {0}, e não um objeto"),
    (r"is no object", "não é um objeto"),
    (r"is missing", "está ausente"),
    (r"is null", "é nulo"),
    (r"is empty, and a name cannot be", "está vazio, e um nome não pode estar"),
    (r"is no base64url text", "não é um texto base64url"),
    (r"is one value too many: the record has (.+)", "é um valor a mais: o registro tem {0}"),
    (r"makes a device name of (\d+) characters; (\d+) are allowed",
     "dá um nome de dispositivo de {0} caracteres; o máximo é {1}"),
    (r"has (\d+) (characters|bytes|items); (\d+) are allowed", "tem {0} {1}; o máximo é {2}"),
    (r"has (\d+) bytes, more than any envelope may", "tem {0} bytes, mais do que um envelope pode ter"),
    (r"has no field of SenML", "não tem nenhum campo SenML"),
    (r"holds a NUL character, which the database cannot store",
     "contém um caractere NUL, que o banco de dados não guarda"),
    (r"holds half of a UTF-16 pair, which is no character",
     "contém metade de um par UTF-16, que não é um caractere"),
    (r"holds a NUL, half a UTF-16 pair or an infinite number, which cannot be stored",
     "contém NUL, metade de um par UTF-16 ou número infinito, que não podem ser guardados"),
    (r"resolves to (.+), which is no SenML name", "resulta em {0}, que não é um nome SenML"),
    (r"names a device and no point, and there is no unit to name it by",
     "indica um dispositivo e nenhum ponto, e não há unidade que dê nome ao ponto"),
    (r"must be understood and is not", "precisa ser entendido, e não é"),
)  # fmt: skip

WHOLE: tuple[tuple[str, str], ...] = (
    (r"(an object with the keys .+) is not (.+), the format this device is bound to",
     "{0}: não é {1}, o formato deste dispositivo"),
    (r"(an object with the keys .+) is not any format that this topic is for \((.+)\)",
     "{0}: não é nenhum dos formatos deste tópico ({1})"),
    (r"(.+) is not (.+), the format this device is bound to", "{0} não é {1}, o formato deste dispositivo"),
    (r"(.+) is not any format that this topic is for \((.+)\)",
     "{0} não é nenhum dos formatos deste tópico ({1})"),
    (r"this could be (.+); bind the device to one of them",
     "pode ser {0}; defina um deles como formato do dispositivo"),
    (r"the device is bound to (.+), which is no format here",
     "o formato do dispositivo é {0}, que não existe aqui"),
    (r"an (ack|event) is an object, and this is (.+)", "um {0} é um objeto, e isto é {1}"),
    (r"the JSON is nested too deeply", "o JSON tem níveis demais"),
    (r"byte (\d+) is no UTF-8: .+", "o byte {0} não é UTF-8"),
    (r"the payload is empty", "o conteúdo está vazio"),
    (r"no JSON from byte (\d+) on: (.+)", "não é JSON a partir do byte {0}: {1}"),
    (r"this topic is the platform's own to publish commands on",
     "neste tópico só a plataforma publica (comandos)"),
    (r"a level of this topic is longer than (\d+) characters",
     "um nível deste tópico tem mais de {0} caracteres"),
    (r"no topic template fits; devices publish on (.*)",
     "nenhum modelo de tópico corresponde; dispositivos publicam em {0}"),
    (r"there is no tenant (.+); make it, or set UNKNOWN_TENANTS=register",
     "não há conta {0}; crie-a, ou use UNKNOWN_TENANTS=register"),
    (r"tenant (.+) has as many devices as it may; (.+) would be one more",
     "a conta {0} já tem o máximo de dispositivos; {1} seria mais um"),
    (r"tenant (.+) has no device (.+); register it, or let unknown ones register",
     "a conta {0} não tem o dispositivo {1}; cadastre-o, ou aceite dispositivos desconhecidos"),
    (r"no gateway has the MAC (.+); register it first", "nenhum gateway tem o MAC {0}; cadastre-o antes"),
    (r"tenant (.+) has used the storage of its quota; raise it, and replay this",
     "a conta {0} usou todo o armazenamento contratado; aumente-o e reprocesse"),
    (r"the payload names a device other than (.+), which signed in",
     "o conteúdo fala de outro dispositivo que {0}, que se autenticou"),
    (r"the tenant has its (\d+) series; (.+) would be one more",
     "a conta já tem suas {0} séries; {1} seria mais uma"),
    (r"(.+) at (\S+) is stored as (.+); (.+) contradicts it",
     "{0} em {1} já está armazenado como {2}; {3} o contradiz"),
    (r"the database refused it: (.+)", "o banco de dados recusou: {0}"),
    (r"processing failed: (.+)", "o processamento falhou: {0}"),
    (r"payload must be an object, an array or a JSON string",
     "payload deve ser um objeto, uma lista ou um texto JSON"),
    (r"topic is empty, too long, or holds a NUL character", "topic está vazio, longo demais ou contém NUL"),
    (r"topic must be text", "topic deve ser um texto"),
    (r"an envelope is an object with client_id, topic, payload and ts",
     "um envelope é um objeto com client_id, topic, payload e ts"),
    (r"the envelope holds a number or text that cannot be read",
     "o envelope contém um número ou texto que não pode ser lido"),
    # Records of the messaging log.
    (r"This is no (?:outbound|webhook) record: (.+)", "O registro não pode ser lido: {0}"),
    (r"The record names no tenant\.", "O registro não diz de que conta é."),
    (r"No such message was accepted here\.", "Nenhuma mensagem assim foi aceita aqui."),
    (r"The record is no message: (.+)", "O registro não é uma mensagem: {0}"),
    (r"The record is no status: (.+)", "O registro não é um estado de mensagem: {0}"),
    (r"Its status is not SENT, DELIVERED, READ or FAILED\.",
     "O estado não é SENT, DELIVERED, READ nem FAILED."),
    (r"No delivery of ours on that channel\.", "Não há entrega nossa nesse canal."),
    (r"(\S+) sent what we do not understand\.", "{0} enviou algo que não entendemos."),
    (r"(\S+) sent an event of an unknown kind\.", "{0} enviou um evento de tipo desconhecido."),
    (r"(\S+) (\S+) is not set up for this tenant\.", "{0} {1} não está configurado nesta conta."),
)  # fmt: skip

OF_A_DELIVERY: tuple[tuple[str, str], ...] = (
    (r"It could not be sent before it expired\.", "Não foi possível enviar antes de expirar."),
    (r"The person must write first\. \((.+)\)", "A pessoa precisa escrever primeiro. ({0})"),
    (r"The person must write first\.", "A pessoa precisa escrever primeiro."),
    (r"The person must write first: their last message is too old, and there is no template\.",
     "A pessoa precisa escrever primeiro: sua última mensagem é antiga demais e não há modelo."),
    (r"The person must write first: their last message is too old, and a template carries no file\.",
     "A pessoa precisa escrever primeiro: sua última mensagem é antiga demais; modelos não levam arquivos."),
    (r"The person must write first: Instagram has not told us their id\.",
     "A pessoa precisa escrever primeiro: o Instagram ainda não informou quem é."),
    (r"The account needs somebody's attention\. \((.+)\)", "A conta no provedor requer atenção. ({0})"),
    (r"The number sends too much\. \((.+)\)", "O número está enviando demais. ({0})"),
    (r"Too many messages to this person\. \((.+)\)", "Mensagens demais para esta pessoa. ({0})"),
    (r"The provider refused it\. \((.+)\)", "O provedor recusou. ({0})"),
    (r"The provider answered (\d+)\.", "O provedor respondeu {0}."),
    (r"The provider cannot be reached\.", "O provedor não pode ser alcançado."),
    (r"The provider was asked and did not answer\.", "O provedor recebeu o pedido e não respondeu."),
    (r"The provider did not answer; whether it has the message only its receipts can say\.",
     "O provedor não respondeu; só os recibos dirão se ele tem a mensagem."),
    (r"The provider does not answer at present; this goes out when it does\.",
     "O provedor não responde no momento; a mensagem sai quando ele voltar."),
    (r"The provider's answer could not be read\.", "A resposta do provedor não pôde ser lida."),
    (r"The answer has no message id\.", "A resposta do provedor não tem o número da mensagem."),
    (r"The account is suspended; this goes out when it no longer is\.",
     "A conta está suspensa; a mensagem sai quando ela for reativada."),
    (r"It waits for its turn at the provider\.", "Espera sua vez no provedor."),
    (r"Nobody has set up (\S+) for this tenant: caudal connector add\.",
     "O canal {0} não está configurado nesta conta: caudal connector add."),
    (r"Our own connector failed: (\S+)\.", "O nosso conector falhou: {0}."),
    (r"(WhatsApp|Instagram) takes (\d+) (characters|bytes)\. Send it in parts\.",
     "{0} aceita {1} {2}. Envie em partes."),
    (r"WhatsApp takes (\d+) characters with a file\. Send it in parts\.",
     "WhatsApp aceita {0} caracteres junto de um arquivo. Envie em partes."),
    (r"WhatsApp takes files of at most 100 MB\. Send a link\.",
     "WhatsApp aceita arquivos de até 100 MB. Envie um link."),
    (r"Files have at most (\d+) MiB here\. Send a link\.",
     "Arquivos têm no máximo {0} MiB aqui. Envie um link."),
    (r"This service takes no files\. Send a link instead\.",
     "Este serviço não aceita arquivos. Envie um link."),
    (r"This connector has no file store\. Set one up\.",
     "Este conector não tem onde ler arquivos. Configure o armazenamento."),
    (r"The account's URL is none that Apprise understands\. Correct it\.",
     "A URL da conta não é entendida pelo Apprise. Corrija-a."),
    (r"The service did not answer in time\.", "O serviço não respondeu a tempo."),
    (r"The service did not say that it took all of it\.", "O serviço não confirmou ter aceitado tudo."),
    (r"The service did not take the message\.", "O serviço não aceitou a mensagem."),
    (r"Instagram does not say who this is\.", "O Instagram não diz quem é esta pessoa."),
    (r"The medium (?:could not be fetched|has no address|broke off on its way)\.|This channel has no media\.",
     "O arquivo não pôde ser obtido."),
    (r"The provider did not hand out the medium\.", "O provedor não entregou o arquivo."),
)  # fmt: skip

# Of the log's letters that could not be put back.
PUT_BACK: tuple[tuple[str, str], ...] = (
    (r"The log has no topic (\S+), or the letter names no key\.",
     "O log não tem o tópico {0}, ou a mensagem não traz chave."),
    (r"Back on its topic\.", "De volta ao seu tópico."),
)  # fmt: skip

_WHOLE = [(re.compile(pattern, re.DOTALL), words) for pattern, words in (*WHOLE, *OF_A_DELIVERY, *PUT_BACK)]
# Before another sentence, which says why.
_BEFORE = (
    (re.compile(r"Given up after (\d+) attempts\. (.+)", re.DOTALL), "Desistimos após {0} tentativas. {1}"),
    (re.compile(r"The text was sent, the file was not\.() (.+)", re.DOTALL),
     "O texto foi enviado, o arquivo não. {1}"),
)  # fmt: skip
_PART = [(re.compile(rf"(?P<field>.+?) {pattern}", re.DOTALL), words) for pattern, words in OF_A_PART]
_IN_A_FIELD = (
    (re.compile(r"^record (\d+)(?=:|$)"), r"registro \1"),
    (re.compile(r"\(of (.+), declared (\w+)\)"), r"(de \1, declarado \2)"),
    (re.compile(r"\(of (.+)\)"), r"(de \1)"),
)


def portuguese(sentence: str) -> str | None:
    """The sentence of a dead letter or a delivery in Portuguese; None for one that nobody has translated."""
    if len(sentence) > MOST:
        return None
    for pattern, words in _BEFORE:
        if found := pattern.fullmatch(sentence):
            why = portuguese(found[2])
            return None if why is None else words.format(found[1], why)
    for pattern, words in _WHOLE:
        if found := pattern.fullmatch(sentence):
            return words.format(*map(_thing, found.groups()))
    for pattern, words in _PART:
        if found := pattern.fullmatch(sentence):
            field, *rest = found.groups()
            return f"{_field(field)} {words.format(*map(_thing, rest))}"
    return None


def _thing(text: str) -> str:
    if text.startswith("an object with the keys "):
        return text.replace("an object with the keys", "um objeto com as chaves", 1)
    return THINGS.get(text) or BROKEN.get(text) or text


def _field(name: str) -> str:
    if name in THINGS:
        return THINGS[name]
    for pattern, words in _IN_A_FIELD:
        name = pattern.sub(words, name)
    return name
