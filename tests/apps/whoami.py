"""Returns the credentials of its process.

It imports no further modules, because its user may not be able to read Python's files.
"""

import os


def application(environ, start_response):
    """The user, group and other groups of this process, its umask, and whether it can be root again, as JSON."""
    umask = os.umask(0)
    os.umask(umask)
    try:
        os.setuid(0)
        root = "true"
    except PermissionError:
        root = "false"
    found = {"uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(), "umask": umask}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [f'{{"root": {root}, {str(found)[1:-1]}}}'.replace("'", '"').encode()]
