"""The methods of the two interfaces: a request's parameters in, a verb's answers out.

Who the caller is comes with the call and is never a parameter. Every method for researchers acts on the
caller's own container; only the administrator's take a user's name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from labshell import keys, machine, policy, settings
from labshell.adoption import Adoption
from labshell.changes import ChangeLog
from labshell.config import GROUP
from labshell.doctor import Doctor
from labshell.errors import LabshellError
from labshell.forwards import Forward
from labshell.gateway import Gateway, Steps
from labshell.maintenance import Maintenance
from labshell.policy import Caller
from labshell.rebuild import Rebuild
from labshell.services import NewService, Services, checked_forwards
from labshell.snapshots import Snapshots
from labshell.usage import UsageReports
from labshell.users import NewUser, Users

Verb = Callable[[str, int], Steps[Any]]  # of the user with that name and uid


@dataclass
class Call:
    """One connection's side of a request: who calls, whether they have gone, what goes along with a reply."""

    caller: Caller
    is_gone: Callable[[], bool] = lambda: False
    wants_more: bool = False
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


def _at_once(answer: Callable[..., Any], *arguments: Any) -> Steps[Any]:
    """A verb without steps in the form of one with."""
    yield from ()
    return answer(*arguments)


class GatewayInterface:
    """org.labshell.Gateway: every method acts on the caller's own container."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._snapshots = Snapshots(gateway)
        self._rebuild = Rebuild(gateway)
        self._usage = UsageReports(gateway)
        self._doctor = Doctor(gateway)

    def Status(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._report(_request, lambda user, uid: _at_once(self._gateway.status, user, uid), more=_more)

    def Start(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._report(_request, self._gateway.start, more=_more)

    def Stop(self, force: bool, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._report(_request, partial(self._gateway.stop, force=force), more=_more)

    def Restart(self, force: bool, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._report(_request, partial(self._gateway.restart, force=force), more=_more)

    def Enter(
        self,
        command: str | None,
        root: bool,
        terminal: dict[str, Any] | None,
        _more: bool = False,
        _request: Call | None = None,
    ) -> Iterator[dict[str, Any]]:
        size = (terminal["type"], terminal["rows"], terminal["columns"]) if terminal else None
        wanted = policy.checked_program(command, as_root=root, terminal=size)
        call, program = yield from self._steps(_request, partial(self._gateway.enter, wanted=wanted), more=_more)
        try:
            call.attached.extend(program.descriptors)
            yield {"_continues": True, "attached": len(program.descriptors)}
            program.hand_over()
            yield {"_continues": False, "exit_status": program.wait(call.is_gone)}
        finally:
            program.end()

    def Proxy(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        call, descriptor = yield from self._steps(_request, self._gateway.proxy, more=_more)
        try:
            call.attached.append(descriptor)
            yield {"_continues": False, "attached": 1}
        finally:
            os.close(descriptor)

    def Forwards(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._do("forwards", _request, _then(_nothing, self._gateway.forwards), more=_more)

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
            return _at_once(self._gateway.add_forward, user, uid, target, name or "", lasting or "", source or "")

        return self._do("forwards", _request, _then(add, self._gateway.forwards), more=_more)

    def RemoveForward(self, port: int, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        def remove(user: str, uid: int) -> Steps[None]:
            return _at_once(self._gateway.remove_forward, user, uid, port)

        return self._do("forwards", _request, _then(remove, self._gateway.forwards), more=_more)

    def Keys(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._do("keys", _request, _then(_nothing, self._gateway.keys), more=_more)

    def AddKey(self, key: str, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        add = partial(self._gateway.add_key, text=key)
        return self._do("keys", _request, _then(add, self._gateway.keys), more=_more)

    def RemoveKey(
        self, which: str, even_the_last: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        remove = partial(self._gateway.remove_key, which=which, even_the_last=even_the_last)
        return self._do("keys", _request, _then(remove, self._gateway.keys), more=_more)

    def Snapshots(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._do("snapshots", _request, _then(_nothing, self._snapshots.list), more=_more)

    def CreateSnapshot(
        self, name: str | None, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        create = partial(self._snapshots.create, name=name or "")
        return self._do("snapshots", _request, _then(create, self._snapshots.list), more=_more)

    def RestoreSnapshot(
        self, name: str, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        restore = partial(self._snapshots.restore, name=name)
        return self._do("snapshots", _request, _then(restore, self._snapshots.list), more=_more)

    def DeleteSnapshot(
        self, name: str, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        delete = partial(self._snapshots.delete, name=name)
        return self._do("snapshots", _request, _then(delete, self._snapshots.list), more=_more)

    def Rebuild(
        self, template: str | None, force: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        rebuild = partial(self._rebuild.rebuild, template=template or "", force=force)
        return self._report(_request, rebuild, more=_more)

    def UndoRebuild(self, force: bool, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._report(_request, partial(self._rebuild.undo, force=force), more=_more)

    def ForgetKept(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._report(_request, self._rebuild.forget, more=_more)

    def ReportUsage(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._do("usage", _request, self._usage.usage, more=_more)

    def Gpus(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._do("gpus", _request, self._usage.gpus, more=_more)

    def Doctor(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._do("findings", _request, self._doctor.examine, more=_more)

    def GatewayKeys(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        return self._do("keys", _request, lambda *_: _at_once(machine.ssh_host_keys), more=_more)

    def _report(self, request: Call | None, verb: Verb, *, more: bool) -> Iterator[dict[str, Any]]:
        """A verb that answers with a report, which also brings the caller the notice that waits for them."""
        call, answer = yield from self._steps(request, verb, more=more)
        notice = self._gateway.unfinished.take_notice(call.caller.name)
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
        yield from _progress(self._gateway.settle(call.caller.name), more=more)
        answer = yield from _progress(verb(call.caller.name, call.caller.uid), more=more)
        return call, answer


def _nothing(*_: object) -> Steps[None]:
    return _at_once(lambda: None)


def _then(change: Verb, look: Callable[[str, int], Any]) -> Verb:
    """A verb that changes something and answers with what there is afterwards."""

    def steps(user: str, uid: int) -> Steps[Any]:
        yield from change(user, uid)
        return look(user, uid)

    return steps


def _researcher(call: Call | None) -> Call:
    """The call, if it is a researcher's."""
    assert call is not None  # noqa: S101 - Service.answer always passes it
    policy.may_use_gateway(call.caller, GROUP)
    return call


class AdminInterface:
    """org.labshell.Admin: the only methods that take a user's name. Every change goes into the change log."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._users = Users(gateway)
        self._services = Services(gateway)
        self._maintenance = Maintenance(gateway)
        self._adoption = Adoption(gateway)
        self._changes = ChangeLog(gateway.config.paths.state / "changes.log")

    def AddUser(
        self,
        name: str,
        keys_: list[str],
        template: str | None,
        port: int | None,
        settings_: dict[str, str],
        password: bool,
        dry_run: bool,
        _more: bool = False,
        _request: Call | None = None,
    ) -> Iterator[dict[str, Any]]:
        config = self._gateway.config
        defaults = {
            "cpu": config.cpu,
            "memory": config.memory,
            "disk": config.disk,
            "processes": str(config.processes),
        }
        new = NewUser(
            name=policy.checked_name(name),
            keys=tuple(keys.parse(text) for text in keys_),
            template=policy.checked_template(template or config.template),
            port=port,
            settings=settings.merged(config.profile, defaults, settings_),
            has_password=password,
        )
        steps = self._users.add(new, dry_run=dry_run)
        return self._change(_request, steps, "add-user", name, settings_, dry_run=dry_run, more=_more)

    def SetUser(
        self, name: str, settings_: dict[str, str], dry_run: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        wanted = settings.merged(self._gateway.config.profile, {}, settings_)
        steps = self._users.set(policy.checked_name(name), wanted, dry_run=dry_run)
        return self._change(_request, steps, "set", name, settings_, dry_run=dry_run, more=_more)

    def RemoveUser(
        self, name: str, archive: bool, dry_run: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        steps = self._users.remove(name, archive=archive, dry_run=dry_run)
        about = {} if archive else {"archive": "none"}
        return self._change(_request, steps, "remove-user", name, about, dry_run=dry_run, more=_more)

    def RestoreUser(
        self, archive: str, dry_run: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        steps = self._users.restore(archive, dry_run=dry_run)
        return self._change(_request, steps, "restore-user", archive, {}, dry_run=dry_run, more=_more)

    def AddService(
        self,
        name: str,
        forwards: list[str],
        template: str | None,
        settings_: dict[str, str],
        autostart: bool,
        dry_run: bool,
        _more: bool = False,
        _request: Call | None = None,
    ) -> Iterator[dict[str, Any]]:
        config = self._gateway.config
        new = NewService(
            name=policy.checked_name(name),
            forwards=checked_forwards(forwards),
            template=policy.checked_template(template or config.template),
            settings=settings.merged(config.profile, {"processes": str(config.processes)}, settings_),
            autostart=autostart,
        )
        steps = self._services.add(new, dry_run=dry_run)
        about = {"forwards": " ".join(forwards), **settings_}
        return self._change(_request, steps, "add-service", name, about, dry_run=dry_run, more=_more)

    def RemoveService(
        self, name: str, dry_run: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        steps = self._services.remove(name, dry_run=dry_run)
        return self._change(_request, steps, "remove-service", name, {}, dry_run=dry_run, more=_more)

    def ListServices(self) -> Iterator[dict[str, Any]]:
        return _answers(_at_once(lambda: {"services": self._services.list()}), "result", more=False)

    def AdoptionPlan(self) -> Iterator[dict[str, Any]]:
        return _answers(_at_once(lambda: {"containers": self._adoption.plan()}), "result", more=False)

    def Adopt(
        self, name: str, keys_: list[str], dry_run: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        steps = self._adoption.adopt(name, [keys.parse(text) for text in keys_], dry_run=dry_run)
        return self._change(_request, steps, "adopt", name, {}, dry_run=dry_run, more=_more)

    def Drain(
        self, message: str, stop: bool, snapshot: bool, plan: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        steps = self._maintenance.drain(message, stop=stop, snapshot=snapshot, plan=plan)
        return self._change(_request, steps, "drain", message, {}, dry_run=plan, more=_more)

    def Undrain(self, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        steps = _at_once(self._maintenance.undrain)
        return self._change(_request, steps, "undrain", "", {}, dry_run=False, more=_more)

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

    def Log(self, count: int) -> Iterator[dict[str, Any]]:
        return _answers(_at_once(lambda: {"changes": self._changes.last(count)}), "result", more=False)

    def _change(
        self,
        request: Call | None,
        steps: Steps[Any],
        verb: str,
        subject: str,
        about: dict[str, str],
        *,
        dry_run: bool,
        more: bool,
    ) -> Iterator[dict[str, Any]]:
        """Do the steps of a changing verb and write down what became of it."""
        assert request is not None  # noqa: S101 - Service.answer always passes it
        if dry_run:
            yield from _answers(steps, "result", more=more)
            return
        who, change = request.caller.login, {"subject": subject, **about}
        try:
            answer = yield from _progress(steps, more=more)
        except LabshellError as error:
            self._changes.add(who, verb, change, str(error))
            raise
        except BaseException:
            self._changes.add(who, verb, change, "interrupted")
            raise
        self._changes.add(who, verb, change, "done")
        yield {"_continues": False, "result": answer}


def _rule(forward: Forward) -> dict[str, Any]:
    return {"port": forward.port, "user": forward.user, "to": f"{forward.address}:{forward.target}"}
