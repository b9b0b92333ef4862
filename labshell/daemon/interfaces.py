"""org.labshell.Gateway, the methods for researchers: a request's parameters in, a verb's answers out.

Who the caller is comes with the call and is never a parameter: every method acts on the caller's own container.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from labshell.config import GROUP
from labshell.daemon.calls import Answer, Call, at_once
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
from labshell.wire.gateway import ContainerReport, FoundKey, Ports, Terminal

T = TypeVar("T")
Verb = Callable[[str, int], Steps[T]]  # of the user with that name and uid


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

    def Status(self, call: Call) -> Answer:
        return self._report(call, lambda user, uid: at_once(self._reports.status, user, uid))

    def Start(self, call: Call) -> Answer:
        return self._report(call, self._lifecycle.start)

    def Stop(self, call: Call, force: bool) -> Answer:
        return self._report(call, partial(self._lifecycle.stop, force=force))

    def Restart(self, call: Call, force: bool) -> Answer:
        return self._report(call, partial(self._lifecycle.restart, force=force))

    def Enter(
        self,
        call: Call,
        command: str | None,
        root: bool,
        terminal: Terminal | None,
        locale: dict[str, str] | None,
    ) -> Answer:
        size = (terminal["type"], terminal["rows"], terminal["columns"]) if terminal else None
        wanted = invocation.checked_program(command, as_root=root, terminal=size, locale=locale or {})
        program = yield from self._steps(call, partial(self._lifecycle.enter, wanted=wanted))
        try:
            call.attached.extend(program.descriptors)
            yield {"attached": len(program.descriptors)}
            program.hand_over()
            return {"exit_status": program.wait(call.is_gone)}
        finally:
            program.end()

    def Proxy(self, call: Call) -> Answer:
        descriptor = yield from self._steps(call, self._lifecycle.proxy)
        call.afterwards.callback(os.close, descriptor)
        call.attached.append(descriptor)
        return {"attached": 1}

    def Forwards(self, call: Call) -> Answer:
        return self._do(call, "ports", partial(at_once, self._forwards.report))

    def AddForward(
        self, call: Call, target: int, name: str | None, lasting: str | None, source: str | None
    ) -> Answer:
        def add(user: str, uid: int) -> Steps[Ports]:
            return at_once(self._forwards.add, user, uid, target, name or "", lasting or "", source)

        return self._do(call, "ports", add)

    def RemoveForward(self, call: Call, port: int) -> Answer:
        def remove(user: str, uid: int) -> Steps[Ports]:
            return at_once(self._forwards.remove, user, uid, port)

        return self._do(call, "ports", remove)

    def Keys(self, call: Call) -> Answer:
        return self._do(call, "keys", _then(_nothing, self._keys.listing))

    def FindKey(self, call: Call, which: str) -> Answer:
        def find(user: str, uid: int) -> Steps[FoundKey]:
            return at_once(self._keys.find, user, uid, which)

        return self._do(call, "found", find)

    def AddKey(self, call: Call, key: str) -> Answer:
        return self._do(call, "keys", _then(partial(self._keys.add, text=key), self._keys.listing))

    def RemoveKey(self, call: Call, which: str, even_the_last: bool) -> Answer:
        remove = partial(self._keys.remove, which=which, even_the_last=even_the_last)
        return self._do(call, "keys", _then(remove, self._keys.listing))

    def EndKeySessions(self, call: Call, fingerprint: str) -> Answer:
        def end(user: str, uid: int) -> Steps[int]:
            return at_once(self._keys.end_sessions, user, uid, fingerprint)

        return self._do(call, "ended", end)

    def Snapshots(self, call: Call) -> Answer:
        return self._do(call, "snapshots", _then(_nothing, self._snapshots.list))

    def CreateSnapshot(self, call: Call, name: str | None) -> Answer:
        create = partial(self._snapshots.create, name=name or "")
        return self._do(call, "snapshots", _then(create, self._snapshots.list))

    def RestoreSnapshot(self, call: Call, name: str, dry_run: bool | None) -> Answer:
        restore = partial(self._snapshots.look if dry_run else self._snapshots.restore, name=name)
        return self._do(call, "snapshots", _then(restore, self._snapshots.list))

    def DeleteSnapshot(self, call: Call, name: str, dry_run: bool | None) -> Answer:
        delete = partial(self._snapshots.look if dry_run else self._snapshots.delete, name=name)
        return self._do(call, "snapshots", _then(delete, self._snapshots.list))

    def Rebuild(self, call: Call, template: str | None, force: bool, dry_run: bool | None) -> Answer:
        rebuild = partial(self._rebuild.rebuild, template=template or "", force=force)
        look = partial(self._rebuild.look_at_template, template=template or "")
        return self._report(call, look if dry_run else rebuild)

    def UndoRebuild(self, call: Call, force: bool, dry_run: bool | None) -> Answer:
        undo = partial(self._rebuild.undo, force=force)
        return self._report(call, self._rebuild.look_at_kept if dry_run else undo)

    def ForgetKept(self, call: Call, dry_run: bool | None) -> Answer:
        forget = self._rebuild.look_at_kept if dry_run else self._rebuild.forget
        return self._report(call, forget)

    def Hold(self, call: Call, lasting: str, reason: str | None) -> Answer:
        def hold(user: str, uid: int) -> Steps[ContainerReport]:
            return at_once(self._idle_stop.hold, user, uid, lasting, reason or "")

        return self._report(call, hold)

    def Release(self, call: Call) -> Answer:
        return self._report(call, lambda user, uid: at_once(self._idle_stop.release, user, uid))

    def ReportUsage(self, call: Call) -> Answer:
        return self._do(call, "usage", self._usage.usage)

    def Gpus(self, call: Call) -> Answer:
        return self._do(call, "gpus", self._usage.gpus)

    def Doctor(self, call: Call) -> Answer:
        return self._do(call, "findings", self._doctor.examine)

    def GatewayKeys(self, call: Call) -> Answer:
        return self._do(call, "keys", lambda *_: at_once(machine.ssh_host_keys))

    def _report(self, call: Call, verb: Verb[ContainerReport]) -> Answer:
        """A verb that answers with a report, which also brings the caller the notice that waits for them."""
        answer = yield from self._steps(call, verb)
        # It is said once, so not to whoever has hung up.
        notice = None if call.is_gone() else self._lab.unfinished.take_notice(call.caller.name)
        return {"status": {**answer, "notice": notice}}

    def _do(self, call: Call, name: str, verb: Verb[Any]) -> Answer:
        """A verb of the caller's, whose answer is the field `name` of the reply."""
        return {name: (yield from self._steps(call, verb))}

    def _steps(self, call: Call, verb: Verb[T]) -> Steps[T]:
        """A verb of the caller's, after what a crash left of the one before it."""
        caller = call.caller
        may_use_gateway(caller, GROUP)
        yield from self._recovery.recover(caller.name)
        try:
            return (yield from verb(caller.name, caller.uid))
        except NoContainer:
            if self._lab.unfinished.work_of(caller.name):  # it is between two names
                raise TryAgain(
                    "rebuild-in-progress", "Your container is being rebuilt; try again in a moment."
                ) from None
            raise


def _nothing(*_: object) -> Steps[None]:
    return at_once(lambda: None)


def _then(change: Verb[None], look: Callable[[str, int], T]) -> Verb[T]:
    """A verb that changes something and answers with what there is afterwards."""

    def steps(user: str, uid: int) -> Steps[T]:
        yield from change(user, uid)
        return look(user, uid)

    return steps
