"""Where labshell lies on the host: the one list, plain enough for the login shell, which reads no configuration."""

ETC = "/etc/labshell"
OPT = "/opt/labshell"
RUN = "/run/labshell"
STATE = "/var/lib/labshell"
LOG = "/var/log/labshell"
PUBLIC = "/public"

CONFIG_FILE = f"{ETC}/labshell.toml"
KEYS = f"{ETC}/keys"  # a file for each user: who may log in
LOGIN_SHELL = f"{OPT}/bin/labshell"
USER_SOCKET = f"{RUN}/labshell.sock"
ADMIN_SOCKET = f"{RUN}/admin.sock"
LANGUAGE_FILE = f"{RUN}/language"  # the configured one, written by the daemon for the login shell
PORTS = f"{PUBLIC}/ports"
ARCHIVE = f"{STATE}/archive"
