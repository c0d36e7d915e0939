"""A page whose script sends requests to the small apps and reports the results in the file $REPORT."""

import os

import raw

PAGE = b"""<!doctype html>
<title>test</title>
<script>
async function run() {
  const shown = await (await fetch("/environs/show")).json();
  const body = "x".repeat(200000);
  const echo = await (await fetch("/inputs/echo", {method: "POST", body})).text();
  const numbers = [...Array(100).keys()];
  const statuses = await Promise.all(numbers.map(async n => (await fetch("/answers/hello?" + n)).status));
  const large = await (await fetch("/large/generator?lines=200000")).arrayBuffer();
  const entries = performance.getEntriesByType("resource");
  const report = {
    protocol: shown.environ.SERVER_PROTOCOL,
    echoed: echo === body,
    successful: statuses.filter(status => status === 200).length,
    large: large.byteLength,
    protocols: [...new Set(entries.map(entry => entry.nextHopProtocol))],
  };
  await fetch("/report", {method: "POST", body: JSON.stringify(report)});
}
run();
</script>
"""


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/report":
        report = os.environ["REPORT"]
        with open(f"{report}.new", "wb") as file:
            file.write(environ["wsgi.input"].read())
        os.replace(f"{report}.new", report)
    elif path != "/":
        return raw.application(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/html")])
    return [PAGE]
