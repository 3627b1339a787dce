"""Signing in."""

from __future__ import annotations

WORDS = {
    "sign_in.title": ("Sign in", "Entrar"),
    "sign_in.login": ("User name or e-mail", "Nome de usuário ou e-mail"),
    "sign_in.password": ("Password", "Senha"),
    "sign_in.tenant": ("Account (if you have several)", "Conta (se você tem várias)"),
    "sign_in.submit": ("Sign in", "Entrar"),
    "sign_in.wrong": ("The name or the password is wrong.", "O nome ou a senha está errado."),
    "sign_in.locked": (
        "Too many failed attempts. This name stays closed for five minutes; then try again.",
        "Tentativas demais. Este nome fica fechado por cinco minutos; depois, tente de novo.",
    ),
    "sign_in.not_a_member": (
        "You do not belong to that account. Leave the field empty to go where you do.",
        "Você não pertence a essa conta. Deixe o campo vazio para ir à sua.",
    ),
    "sign_in.no_tenant": (
        "You belong to no account yet. Ask to be invited.",
        "Você ainda não pertence a nenhuma conta. Peça um convite.",
    ),
    "sign_in.incomplete": ("Give a name and a password.", "Informe nome e senha."),
    "sign_in.forgotten": ("Forgotten your password?", "Esqueceu a senha?"),
    "reset.title": ("A new password", "Uma nova senha"),
    "reset.hint": (
        "We mail you a link that lets you choose another. It is good for an hour.",
        "Enviamos por e-mail um link para escolher outra. Vale por uma hora.",
    ),
    "reset.ask": ("Send the link", "Enviar o link"),
    "reset.sent": (
        "If somebody here has that address, a mail is on its way.",
        "Se alguém aqui tem esse endereço, um e-mail está a caminho.",
    ),
    "reset.choose": (
        "Choose a password of six characters or more.",
        "Escolha uma senha de seis caracteres ou mais.",
    ),
    "reset.submit": ("Set the password", "Definir a senha"),
    "invitation.title": ("You are invited", "Você foi convidado"),
    "invitation.choose": (
        "New here? Choose a user name and a password. Known already? Give your password alone.",
        "Novo aqui? Escolha um nome e uma senha. Já tem conta? Informe só a sua senha.",
    ),
    "invitation.username": ("User name (if you are new)", "Nome de usuário (se você é novo)"),
    "invitation.submit": ("Join", "Entrar"),
    "done.reset": ("Your password was set. Sign in with it.", "Sua senha foi definida. Entre com ela."),
    "tenants.title": ("Your accounts", "Suas contas"),
    "tenants.here": ("You are here", "Você está aqui"),
    "tenants.go": ("Work here", "Trabalhar aqui"),
    "tenants.none": ("You belong to this account alone.", "Você pertence só a esta conta."),
}
