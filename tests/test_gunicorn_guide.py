"""The migration guide for gunicorn is correct: each setting, each message and each command in it."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import test_gunicorn
import test_gunicorn_exit_statuses
import test_gunicorn_hooks
import test_gunicorn_http2
import test_gunicorn_signals
from certificates import Authority
from gunicorn.config import KNOWN_SETTINGS
from gunicorn.util import parse_address
from harness import MLWS, ROOT
from pairs import REASONS

GUIDE = (ROOT / "docs" / "gunicorn.md").read_text()
ROWS = {
    name: (flags, here)
    for name, flags, here in re.findall(
        r"^\| `([a-z0-9_]+)` \| (.*?) \| (.*) \|$", GUIDE.partition("## All settings")[2], re.M
    )
}
# They replace APP, so they cannot be combined with it; see tests/test_paste.py.
PASTE = ("paste", "raw_paste_global_conf")
# Settings of config files only, which are ignored with a message.
SILENT = {"secure_scheme_headers", "default_proc_name", "ssl_context", "logconfig_dict", "config", "wsgi_app"}
SOURCE = (ROOT / "crates/config/src/gunicorn.rs").read_text()


def flags(setting):
    return [flag for flag in setting.cli or [] if flag.startswith("--")]


def is_hook(setting):
    return "Hooks" in setting.section and setting.name != "ssl_context"


def answers():
    """The table in `gunicorn.rs`: flag to (kind, harmless value, message)."""
    texts = dict(re.findall(r'const ([A-Z0-9]+): &str =\s*"(.*)";', SOURCE))
    table = SOURCE.partition("const UNSUPPORTED")[2].partition("];")[0]
    entry = r'\(\s*"([a-z0-9-]+)",\s*(?:true|false),\s*(Ignore|Reject)\((.*?)\),?\s*\)'
    found = {}
    for flag, kind, words in re.findall(entry, table, re.S):
        values = [texts[name] if name else text for text, name in re.findall(r'"([^"]*)"|([A-Z0-9]+)', words)]
        found[flag] = (kind, values[0] if kind == "Reject" else None, values[-1])
    return found


ANSWERS = answers()
# Valid values where the default in the table is not one.
VALUES = {
    "bind": "127.0.0.1:0",
    "worker_class": "sync",
    "chdir": ".",
    "pidfile": "app.pid",
    "user": "root",
    "group": "0",
    "umask": "0o22",
    "tmp_upload_dir": ".",
    "accesslog": "access.log",
    "errorlog": "error.log",
    "proc_name": "shop",
    "pythonpath": ".",
    "reload_extra_files": "*.txt",
    "worker_tmp_dir": ".",
    "certfile": "server.pem",
    "keyfile": "server.key",
    "ca_certs": "Test CA.pem",
    "ciphers": "HIGH",
    "cert_reqs": "0",
    "ssl_version": "2",
    "uwsgi_allow_ips": "127.0.0.1",
    "control_socket": "gunicorn.ctl",
    "root_path": "/shop",
    "raw_env": "COLOUR=blue",
    "logconfig": "log.ini",
    "logconfig_json": "log.json",
    "statsd_host": "127.0.0.1:8125",
    "logger_class": "gunicorn.glogging.Logger",
}
# Values with which settings are rejected.
REJECTED = {
    "protocol": "uwsgi",
    "dirty_workers": "1",
}


# The shortest prefixes where only mlws has another option with a shorter one.
LONGER_PREFIXES = {
    "--error-logfile": "--error-logfi",
    "--forwarded-allow-ips": "--forwarded-a",
    "--header-map": "--header",
    "--initgroups": "--ini",
}


def answer(setting):
    return next((ANSWERS[flag[2:]] for flag in flags(setting) if flag[2:] in ANSWERS), (None, None, None))


def value(setting):
    return VALUES.get(
        setting.name, str(setting.default if setting.default not in (None, [], {}, "") else "1")
    )


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "shop").mkdir()
    Authority(tmp_path).issue("localhost")
    (tmp_path / "shop" / "wsgi.py").write_text("def application(environ, start_response): ...\n")
    return tmp_path


def mlws(directory, *words):
    command = [MLWS, *map(str, words)]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)


def taken():
    """The settings of gunicorn's command line that are accepted."""
    for setting in KNOWN_SETTINGS:
        kind, harmless, _ = answer(setting)
        if flags(setting) and setting.name not in ("config", *PASTE) and (kind != "Reject" or harmless):
            yield setting


def test_the_guide_names_each_setting_and_its_flags():
    assert list(ROWS) == [setting.name for setting in KNOWN_SETTINGS]
    for setting in KNOWN_SETTINGS:
        assert ROWS[setting.name][0] == ", ".join(f"`{flag}`" for flag in setting.cli or []), setting.name


def test_each_setting_is_accepted_on_the_command_line(directory):
    words, warnings = [], []
    for setting in taken():
        kind, _, sentence = answer(setting)
        flag = flags(setting)[0]
        words += [flag] if setting.action in ("store_true", "store_const") else [f"{flag}={value(setting)}"]
        if kind == "Ignore":
            warnings.append(f"[WARNING] {flag} is ignored: {sentence}")
    run = mlws(directory, "shop.wsgi", *words, "--check-config")
    assert run.returncode == 0, run.stderr
    assert [warning for warning in warnings if warning not in run.stderr] == []


def test_each_unambiguous_prefix_of_an_option_is_accepted(directory):
    known = {flag for setting in KNOWN_SETTINGS for flag in flags(setting)} | {"--help", "--version"}
    assert all(f"`{prefix}`" in GUIDE for prefix in LONGER_PREFIXES.values())
    words = []
    for setting in taken():
        flag = flags(setting)[0]
        prefixes = [flag[:length] for length in range(3, len(flag) + 1)]
        unique = [text for text in prefixes if [one for one in known if one.startswith(text)] == [flag]]
        prefix = LONGER_PREFIXES.get(flag, next(iter(unique), flag))
        words += (
            [prefix] if setting.action in ("store_true", "store_const") else [f"{prefix}={value(setting)}"]
        )
    run = mlws(directory, "shop.wsgi", *words)
    assert run.returncode == 0, run.stderr


def test_each_setting_is_accepted_in_a_config_file(directory):
    lines, warnings = [], []
    for setting in taken():
        is_switch = setting.action in ("store_true", "store_const")
        if setting.name in ("check_config", "print_config"):
            continue
        lines.append(f"{setting.name} = {True if is_switch else value(setting)!r}")
        if answer(setting)[0] == "Ignore":
            warnings.append(f"{flags(setting)[0]} is ignored: {answer(setting)[2]}")
    lines += ["tmp_upload_dir = '.'", "wsgi_app = 'shop.wsgi'"]
    (directory / "gunicorn.conf.py").write_text("\n".join(lines))
    run = mlws(directory, "--print-config")
    assert run.returncode == 0, run.stderr
    assert [warning for warning in warnings if warning not in run.stderr] == []
    shown = set(re.findall(r"^([a-z0-9_]+) = .*# gunicorn.conf.py$", run.stdout, re.M))
    ours = {
        flag[2:].replace("-", "_") for setting in taken() for flag in flags(setting) if not answer(setting)[0]
    }
    ours -= {"check_config", "print_config", "log_file"}
    assert shown == {*ours, "tmp_dir", "app"}


def test_hooks_and_settings_of_config_files_are_known():
    called = re.findall(r"`([a-z_]+)\(", GUIDE.partition("\n## Hooks\n")[2].partition("\n## ")[0])
    hooks = {setting.name for setting in KNOWN_SETTINGS if setting.section == "Server Hooks"} - {
        "ssl_context"
    }
    assert hooks <= set(called)
    for setting in KNOWN_SETTINGS:
        if setting.section == "Server Hooks" and setting.name != "ssl_context":
            assert ROWS[setting.name][1] == "called, see below".replace("below", "above")
        if not setting.cli and not is_hook(setting) and setting.name not in SILENT:
            assert setting.name == "tmp_upload_dir"


def test_the_guide_quotes_the_messages_as_they_are_logged(directory):
    unsupported = {setting.name: answer(setting) for setting in KNOWN_SETTINGS if answer(setting)[0]}
    assert {flag for setting in KNOWN_SETTINGS for flag in flags(setting) if flag[2:] in ANSWERS} == {
        f"--{flag}" for flag in ANSWERS
    }
    for name, (kind, harmless, sentence) in unsupported.items():
        unless = f" unless `{harmless}`" if harmless else ""
        start = "ignored" if kind == "Ignore" else f"rejected{unless}"
        assert ROWS[name][1] == f"{start}: {sentence}"


def test_rejected_settings_have_the_documented_message(directory):
    def check(setting):
        flag = flags(setting)[0]
        return (
            flag,
            answer(setting)[2],
            mlws(directory, "shop.wsgi", f"{flag}={REJECTED.get(setting.name, 'x')}", "--check-config"),
        )

    with ThreadPoolExecutor(4) as pool:
        for flag, sentence, run in pool.map(check, [s for s in KNOWN_SETTINGS if answer(s)[0] == "Reject"]):
            assert (run.returncode, run.stderr) == (2, f"error: {flag}: {sentence}\n")


def test_worker_classes_are_handled_as_the_guide_says(directory):
    table = GUIDE.partition("\n## Worker classes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \| (rejected: )?(.*) \|$", table, re.M)[2:]
    for names, is_rejected, sentence in rows:
        for name in re.findall("`(.*?)`", names) or ["shop.Worker"]:
            run = mlws(directory, "shop.wsgi", "-k", name, "--check-config")
            assert run.returncode == (2 if is_rejected else 0), run.stderr
            assert not is_rejected or sentence in run.stderr


def test_the_guide_lists_all_different_defaults(directory):
    shown = mlws(directory, "shop.wsgi", "--print-config").stdout
    differ = {}
    for setting in taken():
        name = flags(setting)[0][2:].replace("-", "_")
        ours = re.search(rf"^{name} = (.*?) +# default$", shown, re.M)
        ours = ours and (",".join(re.findall(r'"([^"]*)"(?=[,\]])', ours[1])) or ours[1].strip("'\""))
        if (
            ours
            and not isinstance(setting.default, (bool, list, type(None)))
            and ours.strip("'\"") != str(setting.default).strip("'\"")
        ):
            differ[setting.name] = (str(setting.default), ours)
    table = GUIDE.partition("### Defaults")[2].partition("###")[0]
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| ([0-9a-z,]+) \| ([0-9a-z,]+) \|", table, re.M)
    assert differ == {name: (theirs, ours) for name, theirs, ours in rows}


def test_the_commands_of_the_guide_run_and_differ_from_gunicorns_in_one_word(directory):
    diff = GUIDE.partition("```diff")[2].partition("```")[0]
    removed, added = re.findall(r"^-(.*)$", diff, re.M), re.findall(r"^\+(.*)$", diff, re.M)
    assert [re.sub(r"\bgunicorn(?!\.)", "mlws", line) for line in removed] == added
    (directory / "gunicorn.conf.py").write_text("")
    for line in added:
        words = re.sub(r'[",\[\]]+', " ", line) if "CMD" in line else line
        run = mlws(directory, *shlex.split(words.partition("mlws ")[2]), "--check-config")
        assert run.returncode == 0, run.stderr
    for command in re.findall(r"^mlws (--.*?)(?: +#.*)?$", GUIDE, re.M):
        assert mlws(directory, *command.split()).returncode == 0


def test_each_difference_is_in_the_guide_and_tested():
    listed = set()
    modules = (
        test_gunicorn,
        test_gunicorn_exit_statuses,
        test_gunicorn_hooks,
        test_gunicorn_http2,
        test_gunicorn_signals,
    )
    for module in modules:
        for case in module.CASES.values():
            listed |= set(case.differs.values())
    assert listed == set(REASONS)
    lines = GUIDE.splitlines()
    assert [sentence for sentence in REASONS.values() if f"- {sentence}" not in lines] == []


def test_the_links_of_the_guide_resolve():
    for target in re.findall(r"\]\(([^)#]+)", GUIDE):
        assert (ROOT / "docs" / target).exists(), target


def test_arguments_of_hooks_have_the_documented_attributes():
    from mylittlewebserver import _hooks

    paragraph = GUIDE.partition("The arguments have these attributes")[2].partition("\n\n")[0]
    settings = _hooks.Settings(
        {
            "workers": 1,
            "timeout": 30,
            "bind": ["unix:a"],
            "raw_env": ["A=b=c"],
            "user": "root",
            "group": "root",
        }
    )
    server = _hooks.Server(settings, _hooks.App(lambda: print, "shop.wsgi"))
    worker = _hooks.Worker(server, 1)
    environ = dict.fromkeys(
        ["REQUEST_METHOD", "RAW_URI", "QUERY_STRING", "SERVER_PROTOCOL", "REMOTE_ADDR", "REMOTE_PORT"], ""
    )
    request = _hooks.Request({**environ, "wsgi.url_scheme": "http", "wsgi.input": None})
    objects = {
        "server": server,
        "worker": worker,
        "req": request,
        "resp": _hooks.Response("HTTP/1.1 200 OK\r\n"),
    }
    for group in paragraph.split(";"):
        name = re.search("`([a-z]+)\\.", group).group(1)
        for attribute in re.findall(r"`[a-z]*\.([A-Za-z_]+)`", group):
            assert hasattr(objects[name], attribute), f"{name}.{attribute}"
    for attribute in re.findall(
        r"`(?:cfg)?\.([a-z_]+)`", GUIDE.partition("It also has `cfg.")[2].partition("\n")[0]
    ):
        assert hasattr(settings, attribute), f"cfg.{attribute}"
    assert (settings.env, settings.uid, settings.gid) == ({"A": "b=c"}, 0, 0)
    assert (settings.settings["timeout"].get(), settings.address) == (30, ["a"])


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:80",
        ":80",
        "LocalHost:0",
        "localhost",
        "[::1]:80",
        "[::1]",
        "tcp://a:1",
        "unix:a",
        "unix:///a:1",
        "fd://3",
    ],
)
def test_addresses_in_hooks_have_the_form_of_gunicorn(text):
    from mylittlewebserver import _hooks

    assert _hooks.Settings({"bind": [text]}).address == [parse_address(text)]


def test_a_listener_of_a_hook_does_not_own_its_socket():
    from mylittlewebserver import _hooks

    with socket.create_server(("127.0.0.1", 0)) as server, open(os.devnull) as other:
        listener = _hooks.Listener("http://x", ("127.0.0.1", 0), server.fileno())
        listener.close()
        listener.sock.close()
        assert listener.getsockname() == server.getsockname()
        assert (str(listener), listener.fileno()) == ("http://x", server.fileno())
        os.dup2(other.fileno(), server.fileno())  # the server has closed it, and the number is reused
        assert listener.fileno() == -1
        with pytest.raises(OSError, match="Bad file descriptor"):
            listener.getsockname()
