"""Signing in."""

from __future__ import annotations

WORDS = {
    "sign_in.title": ("Sign in", "Entrar"),
    "sign_in.login": ("User name or e-mail", "Usuário ou e-mail"),
    "sign_in.password": ("Password", "Senha"),
    "sign_in.tenant": ("Account (if you have several)", "Conta (se você tiver mais de uma)"),
    "sign_in.submit": ("Sign in", "Entrar"),
    "sign_in.wrong": ("The name or the password is wrong.", "Usuário ou senha incorretos."),
    "sign_in.locked": (
        "Too many failed attempts. This name stays closed for five minutes; then try again.",
        "Muitas tentativas. O acesso fica bloqueado por cinco minutos.",
    ),
    "sign_in.not_a_member": (
        "You do not belong to that account. Leave the field empty to go where you do.",
        "Você não participa dessa conta. Deixe o campo vazio para entrar na sua.",
    ),
    "sign_in.no_tenant": (
        "You belong to no account yet. Ask to be invited.",
        "Você ainda não participa de nenhuma conta. Peça um convite.",
    ),
    "sign_in.incomplete": ("Give a name and a password.", "Informe usuário e senha."),
    "sign_in.forgotten": ("Forgotten your password?", "Esqueceu a senha?"),
    "reset.title": ("A new password", "Redefinir senha"),
    "reset.hint": (
        "We mail you a link that lets you choose another. It is good for an hour.",
        "Enviaremos por e-mail um link para criar outra senha. Ele vale por uma hora.",
    ),
    "reset.ask": ("Send the link", "Enviar link"),
    "reset.sent": (
        "If somebody here has that address, a mail is on its way.",
        "Se houver um cadastro com esse e-mail, o link já foi enviado.",
    ),
    "reset.choose": (
        "Choose a password of six characters or more.",
        "Escolha uma senha com pelo menos seis caracteres.",
    ),
    "reset.submit": ("Set the password", "Salvar senha"),
    "invitation.title": ("You are invited", "Convite"),
    "invitation.choose": (
        "New here? Choose a user name and a password. Known already? Give your password alone.",
        "Primeiro acesso? Escolha um usuário e uma senha. Já tem cadastro? Informe apenas a senha.",
    ),
    "invitation.username": ("User name (if you are new)", "Usuário (se for o primeiro acesso)"),
    "invitation.submit": ("Join", "Aceitar convite"),
    "done.reset": ("Your password was set. Sign in with it.", "Senha redefinida. Entre com ela."),
    "tenants.title": ("Your accounts", "Suas contas"),
    "tenants.here": ("You are here", "Conta atual"),
    "tenants.go": ("Work here", "Entrar nesta conta"),
    "tenants.none": ("You belong to this account alone.", "Você participa apenas desta conta."),
}
