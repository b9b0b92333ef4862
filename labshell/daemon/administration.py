"""org.labshell.Admin, the methods for root: the only ones that take a user's name. Every change is written down."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from labshell.daemon.calls import Answer, Call, at_once
from labshell.errors import LabshellError, UsageError
from labshell.host.changes import DONE
from labshell.model import key_files, settings
from labshell.model.forwards import Forward
from labshell.model.names import checked_name, checked_template, existing_name
from labshell.operations.add_user import AddUser, NewUser
from labshell.operations.adoption import Adoption
from labshell.operations.idle_stop import IdleStop
from labshell.operations.lab import Lab
from labshell.operations.list_users import Users
from labshell.operations.maintenance import Maintenance
from labshell.operations.own_keys import OwnKeys
from labshell.operations.remove_user import RemoveUser
from labshell.operations.restore_user import RestoreUser
from labshell.operations.services import NewService, Services, checked_forwards
from labshell.operations.set_user import Change, SetUser
from labshell.operations.steps import Steps
from labshell.operations.user_settings import on_this_host
from labshell.wire import admin
from labshell.wire.gateway import Key

log = logging.getLogger(__name__)


class AdminInterface:
    """org.labshell.Admin, for one host."""

    def __init__(self, lab: Lab, idle_stop: IdleStop) -> None:
        self._lab = lab
        self._users = Users(lab)
        self._add_user = AddUser(lab)
        self._set_user = SetUser(lab)
        self._remove_user = RemoveUser(lab)
        self._restore_user = RestoreUser(lab)
        self._keys = OwnKeys(lab)
        self._services = Services(lab)
        self._maintenance = Maintenance(lab)
        self._adoption = Adoption(lab)
        self._idle_stop = idle_stop
        self._changes = lab.changes

    def AddUser(
        self,
        call: Call,
        name: str,
        keys_: list[str],
        template: str | None,
        port: int | None,
        settings_: dict[str, str],
        password: bool,
        dry_run: bool,
    ) -> Answer:
        new = NewUser(
            name=checked_name(name),
            keys=tuple(key_files.read(text) for text in keys_),
            template=self._template(template),
            port=port,
            settings=self._settings_of_new(settings_),
            has_password=password,
            profile=settings_.get(settings.PROFILE, ""),
        )
        steps = self._add_user.add(new, dry_run=dry_run)
        return self._change(call, steps, "add-user", name, settings_, dry_run=dry_run)

    def _template(self, asked: str | None) -> str:
        return checked_template(asked or self._lab.config.template)

    def _settings_of_new(self, asked: dict[str, str]) -> dict[str, str]:
        """The settings of a new container: what was asked for, over its profile, over the defaults."""
        config = self._lab.config
        limits = {"cpu": config.cpu, "memory": config.memory, "disk": config.disk, "processes": str(config.processes)}
        return on_this_host(settings.merged(config.profile, limits, asked), asked)

    def SetUser(
        self,
        call: Call,
        name: str,
        settings_: dict[str, str],
        keys_: list[str],
        port: int | None,
        password: bool,
        dry_run: bool,
    ) -> Answer:
        change = Change(
            name=existing_name(name),
            settings=on_this_host(settings.merged(self._lab.config.profile, {}, settings_), settings_),
            keys=tuple(key_files.read(text) for text in keys_),
            port=port,
            has_password=password,
            profile=settings_.get(settings.PROFILE, ""),
        )
        about = {**settings_, **{word: "changed" for word in change.words if word not in settings_}}
        steps = self._set_user.set(change, dry_run=dry_run)
        return self._change(call, steps, "set", name, about, dry_run=dry_run)

    def RemoveUser(self, call: Call, name: str, archive: bool, dry_run: bool) -> Answer:
        steps = self._remove_user.remove(name, archive=archive, dry_run=dry_run)
        about = {} if archive else {"archive": "none"}
        return self._change(call, steps, "remove-user", name, about, dry_run=dry_run)

    def RestoreUser(self, call: Call, archive: str, dry_run: bool) -> Answer:
        steps = self._restore_user.restore(archive, dry_run=dry_run)
        return self._change(call, steps, "restore-user", archive, {}, dry_run=dry_run)

    def UserKeys(self, call: Call, name: str) -> Answer:
        return _look(lambda: self._keys.listing(name, self._uid(name)))

    def AddUserKey(self, call: Call, name: str, key: str) -> Answer:
        uid = self._uid(name)

        def add() -> Steps[list[Key]]:
            yield from self._keys.add(name, uid, key)
            return self._keys.listing(name, uid)

        return self._change(call, add(), "keys add", name, {}, dry_run=False)

    def RemoveUserKey(self, call: Call, name: str, which: str, end_sessions: bool) -> Answer:
        uid = self._uid(name)

        def remove() -> Steps[admin.RemovedKey]:
            found = self._keys.find(name, uid, which)
            if found["key"]:
                yield from self._keys.remove(name, uid, found["fingerprint"], even_the_last=True)
            ended = self._keys.end_sessions(name, uid, found["fingerprint"]) if end_sessions else 0
            return {"found": found, "keys": self._keys.listing(name, uid), "ended": ended}

        return self._change(call, remove(), "keys remove", name, {"key": which}, dry_run=False)

    def _uid(self, name: str) -> int:
        uid = self._lab.accounts.uid_of(checked_name(name))
        if uid is None:
            raise UsageError("user-missing", "There is no user {name}.", name=name)
        return uid

    def AddService(
        self,
        call: Call,
        name: str,
        forwards: list[str],
        template: str | None,
        settings_: dict[str, str],
        autostart: bool,
        dry_run: bool,
    ) -> Answer:
        new = NewService(
            name=checked_name(name, of_service=True),
            forwards=checked_forwards(forwards),
            template=self._template(template),
            settings=self._settings_of_new(settings_),
            autostart=autostart,
        )
        steps = self._services.add(new, dry_run=dry_run)
        about = {"forwards": " ".join(forwards), **settings_}
        return self._change(call, steps, "add-service", name, about, dry_run=dry_run)

    def RemoveService(self, call: Call, name: str, dry_run: bool) -> Answer:
        steps = self._services.remove(name, dry_run=dry_run)
        return self._change(call, steps, "remove-service", name, {}, dry_run=dry_run)

    def ListServices(self, call: Call) -> Answer:
        return _look(self._services.list)

    def AdoptionPlan(self, call: Call) -> Answer:
        return _look(self._adoption.plan)

    def Adopt(self, call: Call, name: str, keys_: list[str], dry_run: bool) -> Answer:
        steps = self._adoption.adopt(name, [key_files.read(text) for text in keys_], dry_run=dry_run)
        return self._change(call, steps, "adopt", name, {}, dry_run=dry_run)

    def StartContainer(self, call: Call, name: str, dry_run: bool) -> Answer:
        steps = self._maintenance.start(name, dry_run=dry_run)
        return self._change(call, steps, "start", name, {}, dry_run=dry_run)

    def StopContainer(self, call: Call, name: str, force: bool, dry_run: bool) -> Answer:
        steps = self._maintenance.stop(name, force=force, dry_run=dry_run)
        return self._change(call, steps, "stop", name, {}, dry_run=dry_run)

    def Drain(self, call: Call, message: str, stop: bool, snapshot: bool, plan: bool) -> Answer:
        steps = self._maintenance.drain(message, stop=stop, snapshot=snapshot, plan=plan)
        return self._change(call, steps, "drain", message, {}, dry_run=plan)

    def Undrain(self, call: Call, start: bool) -> Answer:
        steps = self._maintenance.undrain(start=start)
        return self._change(call, steps, "undrain", "", {}, dry_run=False)

    def List(self, call: Call) -> Answer:
        return _look(self._users.list)

    def Show(self, call: Call, name: str) -> Answer:
        return _look(lambda: self._users.show(name))

    def Reconcile(self, call: Call, plan: bool) -> Answer:
        def reconcile() -> admin.RuleChanges:
            firewall = self._lab.firewall
            change = firewall.plan() if plan else firewall.reconcile()
            return {"remove": [*map(_rule, change.remove)], "add": [*map(_rule, change.add)]}

        return _look(reconcile)

    def Idle(self, call: Call, stop: bool) -> Answer:
        if not stop:
            return _look(self._idle_stop.report)

        def stop_idle() -> Steps[list[admin.IdleContainer]]:
            self._idle_stop.refuse_if_off()
            return (yield from self._idle_stop.stop_idle())

        return self._change(call, stop_idle(), "idle --stop", "", {}, dry_run=False)

    def Log(self, call: Call, count: int, only_errors: bool) -> Answer:
        return _look(lambda: self._changes.last(count, only_errors=only_errors))

    def _change(
        self, call: Call, steps: Steps[Any], verb: str, subject: str, given: Mapping[str, str], *, dry_run: bool
    ) -> Answer:
        """Do the steps of a changing verb and write down what became of it."""
        result = "interrupted"
        try:
            answer = yield from steps
            result = DONE
        except LabshellError as error:
            result = str(error)
            raise
        finally:
            if not dry_run:
                self._write_down(call.caller.login, verb, subject, given, result)
        return {"result": answer}

    def _write_down(self, who: str, verb: str, subject: str, given: Mapping[str, str], result: str) -> None:
        """A change that cannot be written down has been made all the same; what came of it is still to be said."""
        try:
            self._changes.add(who, verb, subject, given, result)
        except LabshellError as error:
            log.warning("change not written down", extra={"verb": verb, "why": str(error)})


def _look(ask: Callable[[], object]) -> Answer:
    """A method that only looks."""
    return {"result": (yield from at_once(ask))}


def _rule(forward: Forward) -> admin.Rule:
    return {"port": forward.port, "user": forward.user, "to": f"{forward.address}:{forward.target}"}
