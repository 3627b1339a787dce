"""Conversations, and the sandbox's phones."""

from __future__ import annotations

WORDS = {
    "menu.conversations": ("Conversations", "Conversas"),
    "talk.none": ("You take part in no conversation yet.", "Você ainda não participa de nenhuma conversa."),
    "talk.unclaimed": ("Waiting for somebody", "À espera de atendimento"),
    "talk.unclaimed_hint": (
        "People who wrote first. Whoever joins has the conversation, and gets what waits there.",
        "Pessoas que escreveram primeiro. Quem atender fica com a conversa e recebe o que está à espera.",
    ),
    "talk.unclaimed_none": ("No more of them.", "Não há mais nenhuma."),
    "talk.join": ("Join", "Atender"),
    "talk.join_one": ("Join {name}", "Atender {name}"),
    "talk.count": ("messages: {n}", "mensagens: {n}"),
    "talk.new": ("New conversation", "Nova conversa"),
    "talk.name": ("Its name", "Nome da conversa"),
    "talk.to": ("To: user name, or channel:address", "Para: usuário ou canal:endereço"),
    "talk.content": ("Message", "Mensagem"),
    "talk.parts": ("With:", "Com:"),
    "talk.messages": ("Messages", "Mensagens"),
    "talk.older": ("Older messages", "Mensagens anteriores"),
    "talk.empty": ("Nothing was said yet.", "Nenhuma mensagem ainda."),
    "talk.file": ("File", "Arquivo"),
    "talk.attach": ("File", "Anexar arquivo"),
    "talk.sending": ("Sending {done}…", "Enviando {done}…"),
    "talk.not_sent": ("The file was not taken: {why}", "O arquivo não foi aceito: {why}"),
    "talk.resend": ("Send again", "Enviar de novo"),
    "talk.confirm_resend": (
        "Nobody knows whether this one arrived. Send it again all the same?",
        "Não há confirmação se esta chegou. Enviar de novo mesmo assim?",
    ),
    "talk.answer": ("Answer", "Responder"),
    "message.sent": ("sent", "enviada"),
    "message.failed": ("failed", "falhou"),
    "message.delivered": ("delivered", "entregue"),
    "message.read": ("read", "lida"),
    "phones": ("The sandbox's phones", "Telefones do simulador"),
    "phones.hint": (
        "What people at the other end see, while the sandbox stands in for the providers.",
        "O que as pessoas do outro lado veem, enquanto o simulador faz as vezes dos provedores.",
    ),
    "phones.empty": ("No messages.", "Nenhuma mensagem."),
    "phones.answer": ("Answer as {name}", "Responder como {name}"),
    "phones.read": ("Read all", "Marcar tudo como lido"),
}
