"""org.labshell.Admin, the methods for root: the only ones that take a user's name. Every change is written down."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from labshell.daemon.calls import Call, answers, at_once, progress
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
        return self._change(_request, steps, "add-user", name, settings_, dry_run=dry_run, more=_more)

    def _template(self, asked: str | None) -> str:
        return checked_template(asked or self._lab.config.template)

    def _settings_of_new(self, asked: dict[str, str]) -> dict[str, str]:
        """The settings of a new container: what was asked for, over its profile, over the defaults."""
        config = self._lab.config
        limits = {"cpu": config.cpu, "memory": config.memory, "disk": config.disk, "processes": str(config.processes)}
        return on_this_host(settings.merged(config.profile, limits, asked), asked)

    def SetUser(
        self,
        name: str,
        settings_: dict[str, str],
        keys_: list[str],
        port: int | None,
        password: bool,
        dry_run: bool,
        _more: bool = False,
        _request: Call | None = None,
    ) -> Iterator[dict[str, Any]]:
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
        return self._change(_request, steps, "set", name, about, dry_run=dry_run, more=_more)

    def RemoveUser(
        self, name: str, archive: bool, dry_run: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        steps = self._remove_user.remove(name, archive=archive, dry_run=dry_run)
        about = {} if archive else {"archive": "none"}
        return self._change(_request, steps, "remove-user", name, about, dry_run=dry_run, more=_more)

    def RestoreUser(
        self, archive: str, dry_run: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        steps = self._restore_user.restore(archive, dry_run=dry_run)
        return self._change(_request, steps, "restore-user", archive, {}, dry_run=dry_run, more=_more)

    def UserKeys(self, name: str) -> Iterator[dict[str, Any]]:
        return answers(at_once(lambda: {"keys": self._keys.listing(name, self._uid(name))}), "result", more=False)

    def AddUserKey(
        self, name: str, key: str, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        uid = self._uid(name)

        def add() -> Steps[dict[str, Any]]:
            yield from self._keys.add(name, uid, key)
            return {"keys": self._keys.listing(name, uid)}

        return self._change(_request, add(), "keys add", name, {}, dry_run=False, more=_more)

    def RemoveUserKey(
        self, name: str, which: str, end_sessions: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        uid = self._uid(name)

        def remove() -> Steps[dict[str, Any]]:
            found = self._keys.find(name, uid, which)
            if found["key"]:
                yield from self._keys.remove(name, uid, found["fingerprint"], even_the_last=True)
            ended = self._keys.end_sessions(name, uid, found["fingerprint"]) if end_sessions else 0
            return {"found": found, "keys": self._keys.listing(name, uid), "ended": ended}

        return self._change(_request, remove(), "keys remove", name, {"key": which}, dry_run=False, more=_more)

    def _uid(self, name: str) -> int:
        uid = self._lab.accounts.uid_of(checked_name(name))
        if uid is None:
            raise UsageError("user-missing", "There is no user {name}.", name=name)
        return uid

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
        new = NewService(
            name=checked_name(name, of_service=True),
            forwards=checked_forwards(forwards),
            template=self._template(template),
            settings=self._settings_of_new(settings_),
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
        return answers(at_once(lambda: {"services": self._services.list()}), "result", more=False)

    def AdoptionPlan(self) -> Iterator[dict[str, Any]]:
        return answers(at_once(lambda: {"containers": self._adoption.plan()}), "result", more=False)

    def Adopt(
        self, name: str, keys_: list[str], dry_run: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        steps = self._adoption.adopt(name, [key_files.read(text) for text in keys_], dry_run=dry_run)
        return self._change(_request, steps, "adopt", name, {}, dry_run=dry_run, more=_more)

    def StartContainer(
        self, name: str, dry_run: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        steps = self._maintenance.start(name, dry_run=dry_run)
        return self._change(_request, steps, "start", name, {}, dry_run=dry_run, more=_more)

    def StopContainer(
        self, name: str, force: bool, dry_run: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        steps = self._maintenance.stop(name, force=force, dry_run=dry_run)
        return self._change(_request, steps, "stop", name, {}, dry_run=dry_run, more=_more)

    def Drain(
        self, message: str, stop: bool, snapshot: bool, plan: bool, _more: bool = False, _request: Call | None = None
    ) -> Iterator[dict[str, Any]]:
        steps = self._maintenance.drain(message, stop=stop, snapshot=snapshot, plan=plan)
        return self._change(_request, steps, "drain", message, {}, dry_run=plan, more=_more)

    def Undrain(self, start: bool, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        steps = self._maintenance.undrain(start=start)
        return self._change(_request, steps, "undrain", "", {}, dry_run=False, more=_more)

    def List(self) -> Iterator[dict[str, Any]]:
        return answers(at_once(lambda: {"users": self._users.list()}), "result", more=False)

    def Show(self, name: str) -> Iterator[dict[str, Any]]:
        return answers(at_once(lambda: self._users.show(name)), "result", more=False)

    def Reconcile(self, plan: bool) -> Iterator[dict[str, Any]]:
        def reconcile() -> dict[str, Any]:
            firewall = self._lab.firewall
            change = firewall.plan() if plan else firewall.reconcile()
            return {key: [_rule(item) for item in getattr(change, key)] for key in ("remove", "add")}

        return answers(at_once(reconcile), "result", more=False)

    def Idle(self, stop: bool, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:
        def look() -> Steps[dict[str, Any]]:
            if stop:
                self._idle_stop.refuse_if_off()
                return {"containers": (yield from self._idle_stop.stop_idle())}
            return {"containers": self._idle_stop.report()}

        return self._change(_request, look(), "idle --stop", "", {}, dry_run=not stop, more=_more)

    def Log(self, count: int, only_errors: bool) -> Iterator[dict[str, Any]]:
        changes = at_once(lambda: {"changes": self._changes.last(count, only_errors=only_errors)})
        return answers(changes, "result", more=False)

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
            yield from answers(steps, "result", more=more)
            return
        who, change = request.caller.login, {"subject": subject, **about}
        try:
            answer = yield from progress(steps, more=more)
        except LabshellError as error:
            self._write_down(who, verb, change, str(error))
            raise
        except BaseException:
            self._write_down(who, verb, change, "interrupted")
            raise
        self._write_down(who, verb, change, DONE)
        yield {"_continues": False, "result": answer}

    def _write_down(self, who: str, verb: str, change: dict[str, Any], result: str) -> None:
        """A change that cannot be written down has been made all the same; what came of it is still to be said."""
        try:
            self._changes.add(who, verb, change, result)
        except LabshellError as error:
            log.warning("change not written down", extra={"verb": verb, "why": str(error)})


def _rule(forward: Forward) -> dict[str, Any]:
    return {"port": forward.port, "user": forward.user, "to": f"{forward.address}:{forward.target}"}
