"""Dead letters."""

from __future__ import annotations

WORDS = {
    "menu.dead_letters": ("Dead letters", "Mensagens mortas"),
    "letters.hint": (
        "What could not be stored, kept with its reason until somebody corrects, replays or discards it.",
        "O que não pôde ser armazenado, guardado com o motivo até alguém corrigir, reenviar ou descartar.",
    ),
    "letters.none": (
        "No dead letters. All that came in was stored.",
        "Nenhuma. Tudo o que chegou foi armazenado.",
    ),
    "letters.causes": ("By cause", "Por causa"),
    "letters.all_causes": ("show all causes", "mostrar todas as causas"),
    "letters.list": ("Letters", "Mensagens"),
    "letters.count": (
        "Letters: {letters}; devices: {devices}",
        "Mensagens: {letters}; dispositivos: {devices}",
    ),
    "letters.reason": ("Reason", "Motivo"),
    "letters.topic": ("Topic", "Tópico"),
    "letters.size": ("Size", "Tamanho"),
    "letters.format": ("Format", "Formato"),
    "letters.payload": ("Payload", "Conteúdo"),
    "letters.marked": ("Marked: {pointer}", "Marcado: {pointer}"),
    "letters.marked_near": (
        "Marked: what lacks {pointer}",
        "Marcado: aquilo a que falta {pointer}",
    ),
    "letters.cut": ("Shown in part: it is long.", "Mostrado em parte: é longo."),
    "letters.siblings": ("Of the same message", "Da mesma mensagem"),
    "letters.settled": ("Settled", "Resolvida"),
    "letters.outcome": (
        "{stored} stored, {duplicates} duplicates, {dead} dead",
        "{stored} armazenados, {duplicates} duplicados, {dead} mortos",
    ),
    "letters.fix": ("Correct and put back", "Corrigir e reenviar"),
    "letters.fix_hint": (
        "Try shows what it would become and stores nothing. "
        "What came stays as it came, beside the correction.",
        "Testar mostra no que se tornaria e nada armazena. "
        "O que chegou fica como chegou, ao lado da correção.",
    ),
    "letters.fixed": ("corrected", "corrigida"),
    "letters.binary": (
        "The payload is no text; only its topic can be corrected here.",
        "O conteúdo não é texto; aqui só se pode corrigir o tópico.",
    ),
    "letters.try": ("Try", "Testar"),
    "letters.keep": ("Keep the correction", "Guardar a correção"),
    "letters.replay": ("Replay", "Reenviar"),
    "letters.replay_all": ("Replay all", "Reenviar todas"),
    "letters.confirm_replay": ("Put {n} letters back?", "Reenviar {n} mensagens?"),
    "letters.discard": ("Discard", "Descartar"),
    "letters.discard_all": ("Discard all", "Descartar todas"),
    "letters.confirm_discard": (
        "Discard {n}? They stay to be read until they expire, and are not put back.",
        "Descartar {n}? Continuam legíveis até expirarem, mas não são reenviadas.",
    ),
    "letters.read_only": (
        "Your role may read dead letters and not correct them.",
        "Seu papel pode ler mensagens mortas, mas não corrigi-las.",
    ),
    "letter.open": ("open", "aberta"),
    "letter.replayed": ("replayed", "reenviada"),
    "letter.discarded": ("discarded", "descartada"),
    "letter.all": ("All", "Todas"),
    "tried.as": (
        "Read as {format}: {n} samples, {faults} faults.",
        "Lido como {format}: {n} amostras, {faults} falhas.",
    ),
    "tried.unknown_device": (
        "There is no device {device} yet.",
        "Ainda não existe o dispositivo {device}.",
    ),
    "tried.ack": ("An ack of command {cmd}.", "Uma confirmação do comando {cmd}."),
    "tried.event": ("An event: {event}.", "Um evento: {event}."),
    "replayed.summary": (
        "{replayed} put back ({stored} samples stored), {refused} refused again.",
        "{replayed} reenviadas ({stored} amostras armazenadas), {refused} recusadas de novo.",
    ),
    "replayed.left": ("{n} are left.", "Restam {n}."),
    "replayed.new": ("Letter {id} left new ones:", "A mensagem {id} deixou outras:"),
    "done.fixed": ("The correction is kept.", "A correção foi guardada."),
    "done.unchanged": ("Nothing was changed.", "Nada foi alterado."),
    "done.discarded": ("Discarded.", "Descartadas."),
}
