"""Holds a node against its own OpenAPI document; see openapi.sh."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
KINDS = ["none", "user_token", "app_key", "organization_key", "admin_key"]
# How many requests are made up for an operation, of each sort.
EXAMPLES = int(os.environ.get("CHAOS_OPENAPI_EXAMPLES", "8"))
# The same run every time; another one by the environment.
SEED = int(os.environ.get("CHAOS_OPENAPI_SEED", "1"))


class Node:
    """A fresh node on a free port, with an empty folder, without limits on how often one may ask."""

    def __init__(self, binary, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % probe.getsockname()[1]
        self.url = f"http://{address}"
        self.log = folder / "node.log"
        data = folder / "data"
        limits = [word for name in ("key_requests_per_second", "requests_per_second", "unauthenticated_per_ip") for word in ("--limit", f"{name}=0")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([binary, "--listen", address, "--data", data, "--demo", "off", *limits], stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while True:
            try:
                if requests.get(f"{self.url}/readyz", timeout=1).ok:
                    break
            except requests.RequestException:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the node did not start:\n{self.log.read_text()}")
            time.sleep(0.05)
        self.admin_key = (data / "admin-key").read_text().strip()

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=30)


class World:
    """A tenant with one of everything, made over HTTP."""

    def __init__(self, node, session):
        self.node, self.session = node, session
        made = self.post(node.admin_key, "/v1/organizations", name="World", email="world@example.org")
        self.org, owner = made["organization"]["id"], made["key"]["secret"]
        self.app = self.post(owner, f"/v1/organizations/{self.org}/apps", name="World")["id"]
        base = f"/v1/organizations/{self.org}/apps/{self.app}"
        key = self.post(owner, f"{base}/keys", environment="live")["secret"]
        self.post(key, "/v1/users/batch", items=[{"id": name} for name in ("alice", "bob", "carol")])
        token = self.post(key, "/v1/users/alice/tokens")["token"]
        self.channel = self.post(token, "/v1/channels", type="open", participant_ids=["bob"])["id"]
        self.message = self.post(token, f"/v1/channels/{self.channel}/messages", text="hello")["id"]
        # Keys to be revoked: not those that the test goes on with.
        self.key = {
            "token-keys": self.post(owner, f"{base}/token-keys", environment="live", algorithm="HS256")["id"],
            "apps": self.post(owner, f"{base}/keys", environment="live")["id"],
            "organizations": self.post(owner, f"/v1/organizations/{self.org}/keys")["id"],
        }
        self.credentials = dict(zip(KINDS, [None, token, key, owner, node.admin_key]))

    def post(self, credential, path, **body):
        answer = self.session.post(self.node.url + path, json=body, headers={"Authorization": f"Bearer {credential}"}, timeout=30)
        if answer.status_code not in (200, 201):
            raise SystemExit(f"POST {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def path_parameters(self, path, kind):
        """What exists under the names of a path's parameters."""
        values = {"org": self.org, "app": self.app, "channel": self.channel, "message": self.message, "emoji": "👍"}
        values["key"] = next(key for place, key in self.key.items() if f"/{place}" in path) if "{key}" in path else None
        # A user token is Alice's: it looks after itself, and after Bob where it owns the channel.
        values["user"] = "alice" if kind == "user_token" and path.startswith("/v1/users") else "bob"
        return {name: values[name] for name in re.findall(r"{(\w+)}", path)}

    def query(self, method, path, kind):
        is_app = kind == "app_key"
        if path.endswith("{emoji}"):
            return {"sender_id": "alice"} if is_app else None
        if path.endswith("/read") and method == "delete":
            return {"number": 1, **({"user_id": "alice"} if is_app else {})}
        return None

    def body(self, name, kind):
        """Where the document's example cannot know an id, a body that can."""
        return {
            "AddParticipant": {"user_id": "carol"},
            "Batch_AddParticipant": {"items": [{"user_id": "carol"}, {"user_id": "nobody"}]},
            "Batch_PutUser": {"items": [{"id": "dora"}, {"id": "bob", "bot": True}]},
            "MarkRead": {"number": 1, **({"user_id": "alice"} if kind == "app_key" else {})},
            "SendMessage": {"text": "Hello", **({"sender_id": "alice"} if kind == "app_key" else {})},
        }.get(name)


class Run:
    def __init__(self, node):
        self.node = node
        self.session = requests.Session()
        self.document = self.session.get(f"{node.url}/v1/openapi.json", timeout=10).json()
        self.schema = schemathesis.openapi.from_dict(self.document)
        self.requests = 0
        self.successes = 0
        self.failures = []

    def call(self, case, credential):
        headers = {"Authorization": f"Bearer {credential}"} if credential else {}
        answer = case.call(base_url=self.node.url, session=self.session, headers=headers)
        self.requests += 1
        case.validate_response(answer, checks=CHECKS)
        return answer

    def operation(self, operation):
        path = operation.path
        described = self.document["paths"][path][operation.method.lower()]
        welcome = {name for one in described.get("security", [{}]) for name in (one or {"none": []})}
        for kind in [kind for kind in KINDS if kind in welcome]:
            world = World(self.node, self.session)
            with self.telling(operation, kind):
                self.succeed(operation, described, world, kind)
        world = World(self.node, self.session)
        real = world.path_parameters(path, "app_key")
        for parameters in [real, None] if real else [None]:
            for mode in GenerationMode:
                with self.telling(operation, f"{mode.value} data"):
                    self.make_up(operation, mode, parameters, world)

    @contextlib.contextmanager
    def telling(self, operation, what):
        """Notes a failure, and lets the others still be looked for."""
        try:
            yield
        except (Exception, BaseExceptionGroup) as failure:
            self.failures.append(f"{operation.method.upper()} {operation.path} with {what}: {failure}")

    def succeed(self, operation, described, world, kind):
        """The document's own example, with ids that exist, is a success."""
        parts = {"path_parameters": world.path_parameters(operation.path, kind), "query": world.query(operation.method.lower(), operation.path, kind)}
        content = described.get("requestBody", {}).get("content", {})
        if content:
            name = content["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
            body = world.body(name, kind) or self.document["components"]["schemas"][name].get("example")
            assert body is not None, f"{name} has no example"
            parts |= {"body": body, "media_type": list(content)[-1]}
        answer = self.call(operation.Case(**parts), world.credentials[kind])
        assert answer.status_code < 300, f"no success: {answer.status_code} {answer.text}"
        self.successes += 1

    def make_up(self, operation, mode, path_parameters, world):
        """Requests that the document allows, or forbids, each with every kind of credential."""
        described = self.document["paths"][operation.path][operation.method.lower()]
        if mode is GenerationMode.NEGATIVE and not described.keys() & {"parameters", "requestBody"}:
            # What takes nothing cannot be asked wrongly.
            return
        strategy = operation.as_strategy(generation_mode=mode, path_parameters=path_parameters)

        @seed(SEED)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def holds(case):
            for credential in world.credentials.values():
                self.call(case, credential)

        holds()


def main(binary):
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        node = Node(binary, Path(folder))
        try:
            run = Run(node)
            operations = [result.ok() for result in run.schema.get_all_operations()]
            assert len(operations) == sum(len(item) for item in run.document["paths"].values()), "schemathesis left operations out"
            for operation in operations:
                run.operation(operation)
        finally:
            code = node.stop()
            log = node.log.read_text()
    if "panicked" in log:
        run.failures.append("the node panicked:\n" + log)
    if code != 0:
        run.failures.append(f"the node ended with {code}")
    seconds = time.monotonic() - began
    print(f"{len(operations)} operations, {run.requests} requests, {run.successes} successes asked for, {len(run.failures)} failures, {seconds:.0f} s")
    for failure in run.failures:
        print(f"\n{failure}", file=sys.stderr)
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
