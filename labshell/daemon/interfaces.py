"""org.labshell.Gateway, the methods for researchers: a request's parameters in, a verb's answers out.

Who the caller is comes with the call and is never a parameter: every method acts on the caller's own container.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

from labshell.config import GROUP
from labshell.daemon.calls import Call, at_once, progress
from labshell.doctor.user import Doctor
from labshell.engine import invocation
from labshell.errors import NoContainer, TryAgain
from labshell.host import machine
from labshell.model.access import may_use_gateway
from labshell.operations.idle_stop import IdleStop
from labshell.operations.lab import Lab
from labshell.operations.lifecycle import Lifecycle
from labshell.operations.own_keys import OwnKeys
from labshell.operations.rebuild import Rebuild
from labshell.operations.recovery import Recovery
from labshell.operations.report import Reports
from labshell.operations.snapshots import Snapshots
from labshell.operations.steps import Steps
from labshell.operations.usage import UsageReports
from labshell.operations.user_forwards import UserForwards

Verb = Callable[[str, int], Steps[Any]]  # of the user with that name and uid


class GatewayInterface:
    """org.labshell.Gateway: every method acts on the caller's own container."""

    def __init__(self, lab: Lab, idle_stop: IdleStop) -> None:
        self._lab = lab
        self._lifecycle = Lifecycle(lab)
        self._reports = Reports(lab)
        self._recovery = Recovery(lab)
        self._forwards = UserForwards(lab)
        self._keys = OwnKeys(lab)
        self._snapshots = Snapshots(lab)
        self._rebuild = Rebuild(lab)
        self._usage = UsageReports(lab)
        self._doctor = Doctor(lab)
        self._idle_stop = idle_stop

    def Status(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._report(_request, lambda user, uid: at_once(self._reports.status, user, uid), more=_more)

    def Start(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._report(_request, self._lifecycle.start, more=_more)

    def Stop(self, force: bool, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._report(_request, partial(self._lifecycle.stop, force=force), more=_more)

    def Restart(self, force: bool, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._report(_request, partial(self._lifecycle.restart, force=force), more=_more)

    def Enter(
        self,
        command: str | None,
        root: bool,
        terminal: dict[str, Any] | None,
        locale: dict[str, str] | None,
        _more: bool = False,
        _request: Call | None = None,
    ) -> Iterator[dict[str, Any]]:
        size = (terminal["type"], terminal["rows"], terminal["columns"]) if terminal else None
        wanted = invocation.checked_program(command, as_root=root, terminal=size, locale=locale or {})
        call, program = yield from self._steps(_request, partial(self._lifecycle.enter, wanted=wanted), more=_more)
        try:
            call.attached.extend(program.descriptors)
            yield {"_continues": True, "attached": len(program.descriptors)}
            program.hand_over()
            yield {"_continues": False, "exit_status": program.wait(call.is_gone)}
        finally:
            program.end()

    def Proxy(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        call, descriptor = yield from self._steps(_request, self._lifecycle.proxy, more=_more)
        try:
            call.attached.append(descriptor)
            yield {"_continues": False, "attached": 1}
        finally:
            os.close(descriptor)

    def Forwards(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._do("ports", _request, _then(_nothing, self._forwards.report), more=_more)

    def AddForward(
        self,
        target: int,
        name: str | None,
        lasting: str | None,
        source: str | None,
        _more: bool = False,
        _request: Call | None = None,
    ) -> Iterator[dict[str, Any]]:
        def add(user: str, uid: int) -> Steps[None]:
            return at_once(self._forwards.add, user, uid, target, name or "", lasting or "", source)

        return self._do("ports", _request, _then(add, self._forwards.report), more=_more)

    def RemoveForward(self, port: int, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        def remove(user: str, uid: int) -> Steps[None]:
            return at_once(self._forwards.remove, user, uid, port)

        return self._do("ports", _request, _then(remove, self._forwards.report), more=_more)

    def Keys(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._do("keys", _request, _then(_nothing, self._keys.listing), more=_more)

    def FindKey(self, which: str, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        def find(user: str, uid: int) -> Steps[dict[str, Any]]:
            return at_once(self._keys.find, user, uid, which)

        return self._do("found", _request, find, more=_more)

    def AddKey(self, key: str, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._do("keys", _request, _then(partial(self._keys.add, text=key), self._keys.listing), more=_more)

    def RemoveKey(
        self, which: str, even_the_last: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        remove = partial(self._keys.remove, which=which, even_the_last=even_the_last)
        return self._do("keys", _request, _then(remove, self._keys.listing), more=_more)

    def EndKeySessions(
        self, fingerprint: str, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        def end(user: str, uid: int) -> Steps[int]:
            return at_once(self._keys.end_sessions, user, uid, fingerprint)

        return self._do("ended", _request, end, more=_more)

    def Snapshots(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._do("snapshots", _request, _then(_nothing, self._snapshots.list), more=_more)

    def CreateSnapshot(
        self, name: str | None, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        create = partial(self._snapshots.create, name=name or "")
        return self._do("snapshots", _request, _then(create, self._snapshots.list), more=_more)

    def RestoreSnapshot(
        self, name: str, dry_run: bool | None, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        restore = partial(self._snapshots.look if dry_run else self._snapshots.restore, name=name)
        return self._do("snapshots", _request, _then(restore, self._snapshots.list), more=_more)

    def DeleteSnapshot(
        self, name: str, dry_run: bool | None, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        delete = partial(self._snapshots.look if dry_run else self._snapshots.delete, name=name)
        return self._do("snapshots", _request, _then(delete, self._snapshots.list), more=_more)

    def Rebuild(
        self,
        template: str | None,
        force: bool,
        dry_run: bool | None,
        _more: bool = False,
        _request: Call | None = None,
    ) -> Iterator[dict[str, Any]]:
        rebuild = partial(self._rebuild.rebuild, template=template or "", force=force)
        look = partial(self._rebuild.look_at_template, template=template or "")
        return self._report(_request, look if dry_run else rebuild, more=_more)

    def UndoRebuild(
        self, force: bool, dry_run: bool | None, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        undo = partial(self._rebuild.undo, force=force)
        return self._report(_request, self._rebuild.look_at_kept if dry_run else undo, more=_more)

    def ForgetKept(
        self, dry_run: bool | None, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        forget = self._rebuild.look_at_kept if dry_run else self._rebuild.forget
        return self._report(_request, forget, more=_more)

    def Hold(
        self, lasting: str, reason: str | None, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        def hold(user: str, uid: int) -> Steps[dict[str, Any]]:
            return at_once(self._idle_stop.hold, user, uid, lasting, reason or "")

        return self._report(_request, hold, more=_more)

    def Release(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._report(_request, lambda user, uid: at_once(self._idle_stop.release, user, uid), more=_more)

    def ReportUsage(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._do("usage", _request, self._usage.usage, more=_more)

    def Gpus(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._do("gpus", _request, self._usage.gpus, more=_more)

    def Doctor(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._do("findings", _request, self._doctor.examine, more=_more)

    def GatewayKeys(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._do("keys", _request, lambda *_: at_once(machine.ssh_host_keys), more=_more)

    def _report(self, request: Call | None, verb: Verb, *, more: bool) -> Iterator[dict[str, Any]]:
        """A verb that answers with a report, which also brings the caller the notice that waits for them."""
        call, answer = yield from self._steps(request, verb, more=more)
        # It is said once, so not to whoever has hung up.
        notice = None if call.is_gone() else self._lab.unfinished.take_notice(call.caller.name)
        yield {"_continues": False, "status": {**answer, "notice": notice}}

    def _do(self, name: str, request: Call | None, verb: Verb, *, more: bool) -> Iterator[dict[str, Any]]:
        """A verb of the caller's as replies: progress, then the answer as `name`."""
        _, answer = yield from self._steps(request, verb, more=more)
        yield {"_continues": False, name: answer}

    def _steps(
        self, request: Call | None, verb: Verb, *, more: bool
    ) -> Generator[dict[str, Any], None, tuple[Call, Any]]:
        """A verb of the caller's, after what a crash left of the one before it; the call and the answer."""
        call = _researcher(request)
        yield from progress(self._recovery.recover(call.caller.name), more=more)
        try:
            answer = yield from progress(verb(call.caller.name, call.caller.uid), more=more)
        except NoContainer:
            if self._lab.unfinished.work_of(call.caller.name):  # it is between two names
                raise TryAgain(
                    "rebuild-in-progress", "Your container is being rebuilt; try again in a moment."
                ) from None
            raise
        return call, answer


def _nothing(*_: object) -> Steps[None]:
    return at_once(lambda: None)


def _then(change: Verb, look: Callable[[str, int], Any]) -> Verb:
    """A verb that changes something and answers with what there is afterwards."""

    def steps(user: str, uid: int) -> Steps[Any]:
        yield from change(user, uid)
        return look(user, uid)

    return steps


def _researcher(call: Call | None) -> Call:
    """The call, if it is a researcher's."""
    assert call is not None  # noqa: S101 - Service.answer always passes it
    may_use_gateway(call.caller, GROUP)
    return call
