"""Baselines without a server: the application alone, in its own interpreter on the server's core."""

from __future__ import annotations

import json
import statistics
import time

from measure import STARTS_IN_A_RUN, Run, open_session
from place import BENCH, Place
from process import CannotStart, Session
from scenarios import Floor, Scenario

LOOPS = {Floor.CALL: "call", Floor.FORK: "fork", Floor.FORK_WARM: "fork-warm"}
TIME_FOR_AN_IMPORT = 60.0


def measure_floor(floor: Floor, scenario: Scenario, place: Place, seconds: float) -> Run:
    """Returns figures with the same names as those of a server, as far as they apply."""
    if floor is Floor.IMPORT:
        return measure_import(scenario, place)
    how = LOOPS.get(floor, "hold")
    command = [place.python, str(BENCH / "apps/loops.py"), how, scenario.app, str(seconds)]
    with open_session(place, command) as session:
        try:
            if floor is Floor.HOLD:
                wait_for(session, seconds, text="ready")
                memory = session.memory()
                return Run({"pss": memory.pss, "rss": memory.rss})
            wait_for(session, seconds)
            return Run(json.loads(session.log.read_text()))
        except CannotStart as error:
            return Run(faults=[str(error)])


def wait_for(session: Session, seconds: float, text: str = "") -> None:
    """Waits until the output contains the text, or the process has exited with status 0."""
    deadline = time.monotonic() + TIME_FOR_AN_IMPORT + 2 * seconds
    while not (text and text in session.log.read_text()):
        if session.ended() and session.process.returncode == 0:
            return
        if session.ended() or time.monotonic() > deadline:
            raise CannotStart(session.last_words())
        time.sleep(0.01)


def measure_import(scenario: Scenario, place: Place) -> Run:
    module = scenario.app.partition(":")[0]
    times = []
    for _ in range(STARTS_IN_A_RUN):
        start = time.monotonic()
        with open_session(place, [place.python, "-c", f"import {module}"]) as session:
            session.process.wait(TIME_FOR_AN_IMPORT)
            times.append(time.monotonic() - start)
            if session.process.returncode:
                return Run(faults=[session.last_words()])
    return Run({"start": statistics.median(times)})
