#!/usr/bin/env python3
"""Which metrics an engine exports, read from its published package.

Usage: tests/tools/extract_metric_names.py OUT_DIR vllm==0.33.0 sglang==0.5.23 ...

Downloads each package with pip (source distributions of vLLM, wheels of SGLang), runs nothing of it, and reduces
its source to facts: name, type and labels of every metric that it declares. tests/fixtures/engine-metrics holds the
result; the tests hold the engine profiles against it.
"""

import ast
import io
import json
import pathlib
import sys
import tarfile
import zipfile

PREFIX = {"vllm": "vllm:", "sglang": "sglang:"}
KINDS = ("gauge", "counter", "histogram", "summary")
# families that the package takes from elsewhere and exports all the same
FOREIGN = {"vllm": [{"name": "http_requests", "type": "counter", "labels": ["handler", "method", "status"]}]}


def download(package, version):
    """The bytes and the file name of a package, found and fetched by pip."""
    from pip._internal.commands import create_command
    from pip._vendor.packaging.specifiers import SpecifierSet

    # pip download would build a source distribution to read its metadata
    command = create_command("download")
    form = ["--no-binary", ":all:"] if package == "vllm" else ["--only-binary", ":all:"]
    options, _ = command.parse_args(["--no-deps", *form])
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options, session)
        found = finder.find_best_candidate(package, SpecifierSet("==" + version)).best_candidate
        if found is None:
            sys.exit(f"{package} {version} is not to be had")
        answer = session.get(
            found.link.url_without_fragment, headers={"Accept-Encoding": "identity"}
        )
        answer.raise_for_status()
        return answer.content, found.link.filename


def sources(content, name):
    """Text of every Python file in an archive."""
    if name.endswith(".whl"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.namelist():
                if entry.endswith(".py"):
                    yield entry, archive.read(entry).decode("utf-8", "replace")
    else:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for entry in archive:
                if entry.isfile() and entry.name.endswith(".py"):
                    yield entry.name, archive.extractfile(entry).read().decode("utf-8", "replace")


def kind_of(call):
    """gauge, counter, histogram or summary, by what is called."""
    name = getattr(call.func, "attr", getattr(call.func, "id", "")).lower()
    return next((kind for kind in KINDS if kind in name), None)


def constants(tree):
    """Names that stand for one string throughout a file."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            for target in node.targets:
                name = getattr(target, "id", getattr(target, "attr", None))
                if name and isinstance(node.value.value, str):
                    found[name] = node.value.value
    return found


def strings(node, known):
    """All strings in an expression, by constant or by name."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value
        elif isinstance(part, (ast.Name, ast.Attribute)):
            name = getattr(part, "id", getattr(part, "attr", None))
            if name in known:
                yield known[name]


def metrics(text, prefix):
    """Metrics that a file declares."""
    tree = ast.parse(text)
    known = constants(tree)
    for node in ast.walk(tree):
        yield from listed(node, prefix)
        if not isinstance(node, ast.Call):
            continue
        arguments = {keyword.arg: keyword.value for keyword in node.keywords}
        name = arguments.get("name", node.args[0] if node.args else None)
        # a constant, or a variable that was given one
        name = known.get(getattr(name, "id", None), getattr(name, "value", None))
        if not isinstance(name, str) or not name.startswith(prefix) or " " in name:
            continue
        kind = kind_of(node)
        if kind is None:
            continue
        labels = arguments.get("labelnames")
        labels = sorted(set(strings(labels, known))) if labels is not None else []
        # as a scraper knows it: counters without `_total`
        base = name.removesuffix("_total") if kind == "counter" else name
        yield {"name": base, "type": kind, "labels": labels}


def listed(node, prefix):
    """Metrics in a list of names and texts whose variable says what they are: `counter_specs = [(name, text)]`."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.List):
        return
    variable = getattr(node.targets[0], "id", "")
    kind = next((kind for kind in KINDS if kind in variable), None)
    for row in node.value.elts:
        name = getattr(row.elts[0], "value", None) if isinstance(row, ast.Tuple) else None
        if kind and isinstance(name, str) and name.startswith(prefix):
            yield {"name": name.removesuffix("_total"), "type": kind, "labels": []}


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for requirement in sys.argv[2:]:
        package, version = requirement.split("==")
        content, name = download(package, version)
        found = {}
        for path, text in sources(content, name):
            if PREFIX[package] not in text or "/test" in path:
                continue
            try:
                for metric in metrics(text, PREFIX[package]):
                    known = found.setdefault((metric["name"], metric["type"]), metric)
                    known["labels"] = sorted({*known["labels"], *metric["labels"]})
            except SyntaxError as error:
                print(f"{path}: {error}", file=sys.stderr)
        for metric in FOREIGN.get(package, []):
            found[metric["name"], metric["type"]] = metric
        facts = {
            "engine": package,
            "version": version,
            "metrics": [found[key] for key in sorted(found)],
        }
        target = out / f"{package}-{version}.json"
        rows = ",\n".join("  " + json.dumps(metric) for metric in facts["metrics"])
        target.write_text(
            f'{{"engine": "{package}", "version": "{version}", "metrics": [\n{rows}\n]}}\n'
        )
        print(f"{target}: {len(found)} metrics")


if __name__ == "__main__":
    main()
