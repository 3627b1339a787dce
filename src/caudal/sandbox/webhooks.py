"""Webhooks out: signed, retried with growing pauses for seven days, lost or doubled on request."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import hmac
import itertools
from typing import Any

import httpx
import msgspec

from caudal.core import logs
from caudal.sandbox.model import Account, Behaviour

log = logs.get("sandbox")
WAITING = 50_000
SENDERS = 16


class Hook(msgspec.Struct):
    """One event on its way: the body is fixed, so that every attempt carries the same bytes and signature."""

    account: Account
    body: bytes
    lose: int
    attempt: int = 0
    first_due: float = 0.0
    # What follows only once this was attempted: a well-behaved provider says sent before delivered.
    then: list[Hook] = []


class Dispatcher:
    """Sends webhooks, SENDERS at once. At most WAITING wait; past that the newest is dropped and counted."""

    def __init__(self, *, first_pause: float = 1.0, longest_pause: float = 3600.0) -> None:
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._due: list[tuple[float, int, Hook]] = []
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._free = asyncio.Semaphore(SENDERS)
        self._sending: set[asyncio.Task[None]] = set()
        self.counts = {"delivered": 0, "refused": 0, "lost": 0, "dropped": 0, "given_up": 0}
        self._client = httpx.AsyncClient(
            timeout=10, limits=httpx.Limits(max_connections=SENDERS), trust_env=False
        )

    @property
    def waiting(self) -> int:
        """How many webhooks are not delivered yet."""
        return len(self._due) + len(self._sending)

    def send(self, account: Account, payloads: list[dict[str, Any]], behaviour: Behaviour) -> None:
        """Queue the events of one story; in their order, unless the behaviour shuffles them."""
        if account.webhook_url is None or not payloads:
            return
        hooks = [Hook(account, msgspec.json.encode(payload), behaviour.lose) for payload in payloads]
        copies = [hook for hook in hooks for _ in range(behaviour.duplicates)]
        pause = behaviour.receipt_delay_ms / 1000
        if behaviour.shuffle:
            for hook in reversed(hooks):
                self._push(hook, pause)
        else:
            for hook, following in itertools.pairwise(hooks):
                hook.then = [following]
            self._push(hooks[0], pause)
        for copy in copies:
            self._push(Hook(account, copy.body, 0), pause)

    def _push(self, hook: Hook, pause: float) -> None:
        if len(self._due) >= WAITING:
            self.counts["dropped"] += 1
            return
        now = asyncio.get_running_loop().time()
        if hook.attempt == 0:
            hook.first_due = now + pause
        heapq.heappush(self._due, (now + pause, next(self._order), hook))
        self._wake.set()

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._wake.clear()
                pause = self._due[0][0] - loop.time() if self._due else None
                if pause is None or pause > 0:
                    try:
                        await asyncio.wait_for(self._wake.wait(), pause)
                    except TimeoutError:
                        pass
                    continue
                await self._free.acquire()
                _, _, hook = heapq.heappop(self._due)
                task = asyncio.create_task(self._attempt(hook), name="sandbox webhook")
                self._sending.add(task)
                task.add_done_callback(self._done)
        finally:
            for task in self._sending:
                task.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)
            await self._client.aclose()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._free.release()

    async def _attempt(self, hook: Hook) -> None:
        hook.attempt += 1
        arrived = await self._post(hook)
        for following in hook.then:
            self._push(following, 0)
        hook.then = []
        if arrived:
            self.counts["delivered"] += 1
            return
        pause = min(self._first_pause * 2 ** (hook.attempt - 1), self._longest_pause)
        if asyncio.get_running_loop().time() - hook.first_due > 7 * 24 * 3600:
            self.counts["given_up"] += 1
            return
        self._push(hook, pause)

    async def _post(self, hook: Hook) -> bool:
        if hook.lose > 0:
            hook.lose -= 1
            self.counts["lost"] += 1
            return False
        account = hook.account
        signature = hmac.new(account.app_secret.encode(), hook.body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "x-hub-signature-256": f"sha256={signature}"}
        try:
            answer = await self._client.post(account.webhook_url or "", content=hook.body, headers=headers)
        except httpx.HTTPError:
            self.counts["refused"] += 1
            return False
        if answer.status_code != 200:
            self.counts["refused"] += 1
            return False
        return True

    async def verify(self, account: Account) -> bool:
        """The handshake: whether the address answers our challenge with the challenge."""
        challenge = str(next(self._order) + 1_158_201_444)
        query = {
            "hub.mode": "subscribe",
            "hub.challenge": challenge,
            "hub.verify_token": account.verify_token,
        }
        try:
            answer = await self._client.get(account.webhook_url or "", params=query)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200 and answer.text == challenge
