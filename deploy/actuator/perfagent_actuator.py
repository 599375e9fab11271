"""Protocol 1 of perfagent's `command` actuator, for programs in Python: what every one of them must get right.

A program describes its targets as subclasses of `Target` and hands them to `main`. Here are compare-and-set, the fence
of epochs, repeats that change nothing, and the going on after a kill. Standard library only.

Beside the settings of each target lies a small JSON file: which operation wrote them and with which epoch, the digest of
what it wrote, and the digest of what the engine was last started with. It is written before the settings are. A kill at
any point is so found by the next apply of the same operation, which does what is missing.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request

PROTOCOL = 1


class Refused(Exception):
    """An answer other than yes."""

    def __init__(self, code, message, **more):
        super().__init__(message)
        self.answer = {"code": code, "message": message, **more}


def failed(message):
    """Something that did not work, to be raised. The message must show no settings: they may hold secrets."""
    return Refused("FAILED", message)


def digest(content):
    """The revision of settings: SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def replace(path, content, like=None):
    """Writes a file whole or not at all, private or with the owner and mode of the file that it replaces."""
    directory, name = os.path.split(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if like is not None:
                os.fchmod(file.fileno(), like.st_mode & 0o7777)
                if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), like.st_uid, like.st_gid)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def answers(url, timeout_seconds=2):
    """Whether an engine serves: its metrics endpoint answers with 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_seconds) as response:
            return response.status == 200
    except (OSError, ValueError):
        return False


class Target:
    """The settings of one replica, kept in one file."""

    def __init__(self, name, path, metrics_url, router=None):
        """`router` is the program that has a load balancer send requests to this replica, or none: `router NAME in|out`."""
        self.name = name
        self.path = path
        self.metrics_url = metrics_url
        self.router = router
        directory, file = os.path.split(path)
        self.sidecar = os.path.join(directory, f".{file}.perfagent.json")
        self.lock = os.path.join(directory, f".{file}.perfagent.lock")

    # what a program says of its kind of target

    def launch_args(self, content):
        """The words that the engine is started with, of these settings."""
        raise NotImplementedError

    def with_launch_args(self, content, launch_args):
        """The settings with other words."""
        raise NotImplementedError

    def start(self, content):
        """Ends the engine if it runs, and starts it with these settings. Need not wait until it serves."""
        raise NotImplementedError

    def runs(self):
        """Whether the engine runs at all."""
        raise NotImplementedError

    def runs_with(self, state, revision):
        """Whether the engine was started with the settings of this revision. Of what somebody else wrote only they know:
        it counts as started with that."""
        return state.get("digest") != revision or state.get("started_with") == revision

    # what is the same for all

    @contextlib.contextmanager
    def held(self):
        """Nobody else writes meanwhile."""
        handle = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def content(self):
        try:
            with open(self.path, "rb") as file:
                return file.read()
        except OSError as error:
            raise failed(f"cannot read the settings of {self.name}, {self.path}: {error.strerror}") from None

    def state(self):
        try:
            with open(self.sidecar, "rb") as file:
                state = json.load(file)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            raise failed(f"cannot read {self.sidecar}") from None
        if not isinstance(state, dict):
            raise failed(f"{self.sidecar} is no state of this program")
        return state

    def keep(self, state):
        replace(self.sidecar, (json.dumps(state) + "\n").encode())

    def shown(self):
        content, state = self.content(), self.state()
        revision = digest(content)
        # an operation that was ended before it wrote wrote nothing
        wrote = state.get("digest") == revision
        in_force = self.runs_with(state, revision)
        return {
            "name": self.name,
            "revision": revision,
            "content_base64": base64.b64encode(content).decode(),
            "launch_args": self.launch_args(content),
            "ready": in_force and self.runs() and answers(self.metrics_url),
            "operation_id": state.get("operation_id") if wrote else None,
            "epoch": state.get("epoch"),
            "metrics_url": self.metrics_url,
            "takes_requests": state.get("takes_requests", True) if self.router else None,
        }

    def admitted(self, state, epoch):
        """Refuses an earlier holder."""
        current = state.get("epoch")
        if current is not None and epoch < current:
            message = f"{self.name} was written with epoch {current}"
            raise Refused("STALE_EPOCH", message, current_epoch=current)

    def route(self, request):
        """Has the load balancer send it new requests, or none."""
        takes_requests, epoch = request["takes_requests"], request["epoch"]
        if not self.router:
            raise failed("nothing routes requests here: give --route")
        with self.held():
            state = self.state()
            self.admitted(state, epoch)
            # not known while the router works: the next call asks it again
            state.update(epoch=epoch, takes_requests=not takes_requests)
            self.keep(state)
            word = "in" if takes_requests else "out"
            ran = subprocess.run([self.router, self.name, word], stdout=subprocess.DEVNULL)
            if ran.returncode != 0:
                raise failed(f"{self.router} {self.name} {word} ended with {ran.returncode}")
            state.update(takes_requests=takes_requests)
            self.keep(state)
            return self.shown()

    def write(self, request, content):
        operation, epoch = request["operation_id"], request["epoch"]
        with self.held():
            state, before = self.state(), self.content()
            revision, wanted = digest(before), digest(content)
            self.admitted(state, epoch)
            is_there = state.get("operation_id") == operation and revision == wanted
            if not is_there and revision != request["expect_revision"]:
                message = f"the settings of {self.name} are others"
                raise Refused("STALE_REVISION", message, current_revision=revision)
            # words that cannot be read are refused before anything is changed
            self.launch_args(content)
            state.setdefault("started_with", revision)
            state.update(operation_id=operation, epoch=epoch, digest=wanted)
            self.keep(state)
            if revision != wanted:
                replace(self.path, content, like=os.stat(self.path))
            if not self.runs_with(state, wanted):
                self.start(content)
                state["started_with"] = wanted
                self.keep(state)
            return self.shown()


def settings_of(request):
    content = request.get("content_base64")
    try:
        return base64.b64decode(content, validate=True)
    except (TypeError, ValueError):
        raise failed("content_base64 is no base64") from None


def answer(request, targets_of):
    """What to say to a request."""
    if request.get("protocol") != PROTOCOL:
        raise failed(f"only protocol {PROTOCOL} is spoken here")
    targets = targets_of(request["instance"])
    op = request["op"]
    if op == "read":
        return {"targets": [target.shown() for target in targets]}
    target = next((one for one in targets if one.name == request["target"]), None)
    if target is None:
        raise Refused("NO_TARGET", "there is no such target")
    if op == "route":
        return {"target": target.route(request)}
    content = settings_of(request)
    if op == "plan":
        after = target.with_launch_args(content, request["launch_args"])
        return {"content_base64": base64.b64encode(after).decode(), "needs_restart": after != content}
    if op in ("apply", "restore"):
        return {"target": target.write(request, content)}
    raise failed("this op is not known here")


def by_url(map_file, instance, label, otherwise):
    """Name and URL of each target: of a map file from metrics URL to name, or of a label with the names in the order of
    the URLs, or else what `otherwise` makes of the place."""
    urls = instance["metrics_urls"]
    if map_file:
        try:
            with open(map_file, "rb") as file:
                names = json.load(file)
        except (OSError, ValueError):
            raise failed(f"cannot read {map_file}") from None
        missing = [url for url in urls if url not in names]
        if missing:
            raise failed(f"{map_file} does not say what is behind {missing[0]}")
        return [(names[url], url) for url in urls]
    named = instance["labels"].get(label)
    names = named.split(",") if named else [otherwise(at) for at in range(len(urls))]
    if len(names) != len(urls) or None in names:
        raise failed(f"give --map, or the label {label} with {len(urls)} names, separated by commas")
    return list(zip(names, urls))


def main(targets_of):
    """Reads a request, answers it."""
    try:
        request = json.load(sys.stdin.buffer)
        said = {"protocol": PROTOCOL, "ok": answer(request, targets_of)}
    except Refused as refusal:
        said = {"protocol": PROTOCOL, "error": refusal.answer}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        # what is wrong with it may be a secret of it
        message = f"this request cannot be read ({type(error).__name__})"
        said = {"protocol": PROTOCOL, "error": {"code": "FAILED", "message": message}}
    except OSError as error:
        message = f"{error.filename or 'a file'}: {error.strerror}"
        said = {"protocol": PROTOCOL, "error": {"code": "FAILED", "message": message}}
    json.dump(said, sys.stdout)
    print()
