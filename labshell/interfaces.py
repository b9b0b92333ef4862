"""The methods of the two interfaces: a request's parameters in, a verb's answers out.

Who the caller is comes with the call and is never a parameter. Every method for researchers acts on the
caller's own container; only the administrator's take a user's name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from labshell import keys, machine, policy
from labshell.config import GROUP
from labshell.forwards import Forward
from labshell.gateway import Gateway, Steps
from labshell.policy import Caller
from labshell.users import NewUser, Users


@dataclass
class Call:
    """One connection's side of a request: who calls, whether they have gone, what goes along with a reply."""

    caller: Caller
    is_gone: Callable[[], bool] = lambda: False
    attached: list[int] = field(default_factory=list)


def _progress(steps: Steps[Any], *, more: bool) -> Generator[dict[str, Any], None, Any]:
    """A verb's progress as replies, if the caller wants more than one; returns its answer."""
    while True:
        try:
            progress = next(steps)
        except StopIteration as stop:
            return stop.value
        if more:
            yield {"_continues": True, "progress": progress._asdict()}


def _answers(steps: Steps[Any], name: str, *, more: bool) -> Iterator[dict[str, Any]]:
    """A verb's steps as replies: progress, then the answer as `name`."""
    answer = yield from _progress(steps, more=more)
    yield {"_continues": False, name: answer}


def _at_once(answer: Callable[[], Any]) -> Steps[Any]:
    """A verb without steps in the form of one with."""
    yield from ()
    return answer()


class GatewayInterface:
    """org.labshell.Gateway: every method acts on the caller's own container."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def Status(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        caller = _researcher(_request).caller
        return self._reply(_at_once(lambda: self._gateway.status(caller.name, caller.uid)), _more)

    def Start(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        caller = _researcher(_request).caller
        return self._reply(self._gateway.start(caller.name, caller.uid), _more)

    def Stop(self, force: bool, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        caller = _researcher(_request).caller
        return self._reply(self._gateway.stop(caller.name, caller.uid, force=force), _more)

    def Restart(self, force: bool, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        caller = _researcher(_request).caller
        return self._reply(self._gateway.restart(caller.name, caller.uid, force=force), _more)

    def Enter(
        self,
        command: str | None,
        root: bool,
        terminal: dict[str, Any] | None,
        _more: bool = False,
        _request: Call | None = None,
    ) -> Iterator[dict[str, Any]]:
        call = _researcher(_request)
        size = (terminal["type"], terminal["rows"], terminal["columns"]) if terminal else None
        wanted = policy.checked_program(command, as_root=root, terminal=size)
        program = yield from _progress(self._gateway.enter(call.caller.name, call.caller.uid, wanted), more=_more)
        try:
            call.attached.extend(program.descriptors)
            yield {"_continues": True, "attached": len(program.descriptors)}
            program.hand_over()
            yield {"_continues": False, "exit_status": program.wait(call.is_gone)}
        finally:
            program.end()

    def Proxy(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        call = _researcher(_request)
        descriptor = yield from _progress(self._gateway.proxy(call.caller.name, call.caller.uid), more=_more)
        try:
            call.attached.append(descriptor)
            yield {"_continues": False, "attached": 1}
        finally:
            os.close(descriptor)

    def Forwards(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._forwards_after(_request, lambda *_: None)

    def AddForward(
        self,
        target: int,
        name: str | None,
        lasting: str | None,
        source: str | None,
        _more: bool = False,
        _request: Call | None = None,
    ) -> Iterator[dict[str, Any]]:
        given = (target, name or "", lasting or "", source or "")
        return self._forwards_after(_request, lambda user, uid: self._gateway.add_forward(user, uid, *given))

    def RemoveForward(self, port: int, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._forwards_after(_request, lambda user, uid: self._gateway.remove_forward(user, uid, port))

    def _forwards_after(self, request: Call | None, change: Callable[[str, int], None]) -> Iterator[dict[str, Any]]:
        caller = _researcher(request).caller
        change(caller.name, caller.uid)
        yield {"_continues": False, "forwards": self._gateway.forwards(caller.name, caller.uid)}

    def Keys(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        caller = _researcher(_request).caller
        yield {"_continues": False, "keys": self._gateway.keys(caller.name)}

    def AddKey(self, key: str, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        caller = _researcher(_request).caller
        yield from _progress(self._gateway.add_key(caller.name, caller.uid, key), more=_more)
        yield {"_continues": False, "keys": self._gateway.keys(caller.name)}

    def RemoveKey(
        self, which: str, even_the_last: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        caller = _researcher(_request).caller
        steps = self._gateway.remove_key(caller.name, caller.uid, which, even_the_last=even_the_last)
        yield from _progress(steps, more=_more)
        yield {"_continues": False, "keys": self._gateway.keys(caller.name)}

    def Snapshots(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._snapshots_after(_request, lambda *_: _at_once(lambda: None), more=_more)

    def CreateSnapshot(
        self, name: str | None, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        create = self._gateway.create_snapshot
        return self._snapshots_after(_request, lambda user, uid: create(user, uid, name or ""), more=_more)

    def RestoreSnapshot(
        self, name: str, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        restore = self._gateway.restore_snapshot
        return self._snapshots_after(_request, lambda user, uid: restore(user, uid, name), more=_more)

    def DeleteSnapshot(
        self, name: str, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        delete = self._gateway.delete_snapshot
        return self._snapshots_after(_request, lambda user, uid: delete(user, uid, name), more=_more)

    def _snapshots_after(
        self, request: Call | None, change: Callable[[str, int], Steps[None]], *, more: bool
    ) -> Iterator[dict[str, Any]]:
        caller = _researcher(request).caller
        yield from _progress(change(caller.name, caller.uid), more=more)
        yield {"_continues": False, "snapshots": self._gateway.snapshots(caller.name, caller.uid)}

    def GatewayKeys(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        _researcher(_request)
        yield {"_continues": False, "keys": machine.ssh_host_keys()}

    def _reply(self, steps: Steps[Any], more: bool) -> Iterator[dict[str, Any]]:
        return _answers(steps, "status", more=more)


def _researcher(call: Call | None) -> Call:
    """The call, if it is a researcher's."""
    assert call is not None  # noqa: S101 - Service.answer always passes it
    policy.may_use_gateway(call.caller, GROUP)
    return call


class AdminInterface:
    """org.labshell.Admin: the only methods that take a user's name."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._users = Users(gateway)

    def AddUser(
        self,
        name: str,
        keys_: list[str],
        template: str | None,
        port: int | None,
        limits: dict[str, str],
        dry_run: bool,
        _more: bool = False,
    ) -> Iterator[dict[str, Any]]:
        config = self._gateway.config
        new = NewUser(
            name=policy.checked_name(name),
            keys=tuple(keys.parse(text) for text in keys_),
            template=policy.checked_template(template or config.template),
            port=port,
            limits=policy.engine_limits(
                {"cpu": config.cpu, "memory": config.memory, "disk": config.disk, "processes": str(config.processes)},
                limits,
            ),
        )
        return _answers(self._users.add(new, dry_run=dry_run), "result", more=_more)

    def RemoveUser(self, name: str, archive: bool, dry_run: bool, _more: bool = False) -> Iterator[dict[str, Any]]:
        return _answers(self._users.remove(name, archive=archive, dry_run=dry_run), "result", more=_more)

    def List(self) -> Iterator[dict[str, Any]]:
        return _answers(_at_once(lambda: {"users": self._users.list()}), "result", more=False)

    def Show(self, name: str) -> Iterator[dict[str, Any]]:
        return _answers(_at_once(lambda: self._users.show(name)), "result", more=False)

    def Reconcile(self, plan: bool) -> Iterator[dict[str, Any]]:
        def reconcile() -> dict[str, Any]:
            firewall = self._gateway.firewall
            change = firewall.plan() if plan else firewall.reconcile()
            return {key: [_rule(item) for item in getattr(change, key)] for key in ("remove", "add")}

        return _answers(_at_once(reconcile), "result", more=False)


def _rule(forward: Forward) -> dict[str, Any]:
    return {"port": forward.port, "user": forward.user, "to": f"{forward.address}:{forward.target}"}
