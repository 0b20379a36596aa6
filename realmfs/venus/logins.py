"""What a login, a logout, a refused or an expiring token means for what is cached (client.md §4, auth.md §5).

Rights are cached by local user, as servers told them to whoever he was then; who that was is remembered with
them, on the disk, for as long. So a start without a token finds rights that it knows the owner of.

    login, as the same            in doubt: asked again before they are used, but used all the same while
    refused, ended                servers are away, so that work without a network goes on
    logout, login as another      forgotten, also on the disk: nobody is here whose rights they were

What the kernel was told under them is taken back in any case. The logs are looked at, for changes may have
waited for this login.

A token that is about to end is announced from an hour before on, in steps of five minutes. One that has ended
stays, unsent: it says who the user was, whose changes wait.
"""

import trio

from realmfs.realms.realms import Realms
from realmfs.realms.tokens import TOKEN_MARGIN, Held, News
from realmfs.venus.core import Core
from realmfs.venus.events import TokenEnds, TokenNews
from realmfs.venus.reintegrate import Reintegrator

LOOK = 15.0
WARN = 3600.0
STEP = 300.0
"""Seconds: between looks at all tokens, of warning before an end, between warnings (client.md §10)."""


class Logins:
    """Follows the tokens of all users."""

    def __init__(self, core: Core, reintegrator: Reintegrator) -> None:
        self._core = core
        self._reintegrator = reintegrator
        self._warned: dict[tuple[str, int], int] = {}  # by realm and uid: steps left when last announced

    def attach(self, realms: Realms) -> None:
        """Follow the tokens held for these realms."""
        realms.tokens.listener = self.changed
        for held in realms.tokens.all():  # kept since the last run
            self._remember(held)

    def changed(self, held: Held, news: News) -> None:
        """Take in that a user got or lost a token. Does not wait."""
        user = held.realm, held.uid
        self._warned.pop(user, None)
        if news is News.DROPPED:
            self.forget(*user)
        else:
            self._remember(held)
            self._doubt(*user)
        self._core.events.publish(TokenNews(held.realm, held.uid, held.identity, news.value))
        self._reintegrator.wake_all()

    def forget(self, realm: str, uid: int) -> None:
        """Forget who a user was and what he might do in a realm: he logs out, with a token or without."""
        cache = self._core.cache
        row = cache.realms.find(realm)
        if row is None:
            return
        self._core.nodes.forget_rights(row.id, uid)
        with cache.transaction():
            cache.identities.forget(row.id, uid)
        self._doubt(realm, uid)

    def _remember(self, held: Held) -> None:
        """Remember who a user is. Rights that are not known to be his are forgotten."""
        cache = self._core.cache
        if cache.damage is not None:
            return
        with cache.transaction():
            realm = cache.realms.add(held.realm)
            vice_id = held.token.clear.vice_id
            if cache.identities.get(realm.id, held.uid) != vice_id:
                self._core.nodes.forget_rights(realm.id, held.uid)
                cache.identities.set(realm.id, held.uid, vice_id)

    def _doubt(self, realm: str, uid: int) -> None:
        row = self._core.cache.realms.find(realm)
        if row is None:
            return
        self._core.nodes.doubt(row.id, uid)
        for volume in self._core.volumes:
            if volume.realm == realm:
                for node in volume.in_memory():
                    self._core.kernel_forget(node)

    async def run(self) -> None:
        """Warn of ends to come, for ever."""
        while True:
            realms = self._core.volumes.realms
            for held in realms.tokens.all() if realms is not None else ():
                self._look(held)
            await trio.sleep(LOOK)

    def _look(self, held: Held) -> None:
        """Announce an end each time that it has come nearer by a step, and once that it is there."""
        left = held.token.seconds_left(self._core.now()) - TOKEN_MARGIN
        if left > WARN:
            return
        steps = max(-1, int(left // STEP))
        if self._warned.get((held.realm, held.uid)) == steps:
            return
        self._warned[held.realm, held.uid] = steps
        self._core.events.publish(TokenEnds(held.realm, held.uid, held.identity, max(0.0, left)))
        if left <= 0 and self._core.volumes.realms is not None:
            self._core.volumes.realms.tokens.remove_file(held)
            self._doubt(held.realm, held.uid)
            self._reintegrator.wake_all()
