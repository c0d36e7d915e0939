"""A config file that records the hooks and the access log of `affinity.py`."""

logconfig_dict = {
    "root": {"level": "INFO", "handlers": []},
    "handlers": {"affinity": {"class": "affinity.AccessLog"}},
    "loggers": {"gunicorn.access": {"level": "INFO", "handlers": ["affinity"], "propagate": False}},
}


def pre_request(worker, req):
    import affinity

    name = affinity.asked(req.query)["id"]
    affinity.record("pre_request", name)
    affinity.trace.set(name)


def post_request(worker, req, environ, resp):
    import affinity

    affinity.record("post_request", affinity.asked(req.query)["id"])
