"""As much of the W&B server as its client asks for to fetch files of runs and artifacts,
and a look at what the client keeps for a later upload."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wandb

DATE = "2026-01-01T00:00:00Z"


@dataclass
class Store:
  """What the server knows: files of runs, and of artifacts, by their paths."""

  runs: dict[str, dict[str, bytes]] = field(default_factory=dict)
  """ENTITY/PROJECT/RUN -> name -> content."""
  artifacts: dict[str, dict[str, bytes]] = field(default_factory=dict)
  """ENTITY/PROJECT/NAME:VERSION -> name -> content."""
  asked: list[str] = field(default_factory=list)
  """Names of the queries that came in."""
  url: str = ""
  keys_accepted: bool = True

  def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    """The data that a GraphQL query asks for."""
    name = query.split("(")[0].split("{")[0].split()[-1]
    self.asked.append(name)
    handler = getattr(self, f"_on_{name}", None)
    return handler(variables) if handler else {}

  def _on_Viewer(self, variables: dict[str, Any]) -> dict[str, Any]:
    del variables
    user = {"id": "1", "username": "me", "email": "", "admin": False, "flags": "{}"}
    none: dict[str, list] = {"edges": []}
    return {"viewer": {**user, "entity": "org", "teams": none, "apiKeys": none}}

  _on_GetDefaultEntity = _on_Viewer

  def _on_Run(self, variables: dict[str, Any]) -> dict[str, Any]:
    path = "/".join(variables[key] for key in ("entity", "project", "name"))
    if path not in self.runs:
      return {"project": {"run": None}}
    empty = {key: None for key in ("sweepName", "group", "jobType", "commit", "notes")}
    run = {
      "id": "r", "projectId": "1", "name": variables["name"], "displayName": "run",
      "tags": [], "state": "finished", "config": "{}", "summaryMetrics": "{}",
      "systemMetrics": "{}", "historyLineCount": 0, "historyKeys": None,
      "createdAt": DATE, "heartbeatAt": DATE, "readOnly": True, "description": "",
      "user": {"name": "me", "username": "me"}, **empty,
    }  # fmt: skip
    return {"project": {"run": run}}

  def _on_RunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:
    path = "/".join(variables[key] for key in ("entity", "project", "name"))
    pattern, names = variables.get("pattern"), variables.get("fileNames")
    chosen = [
      (name, content)
      for name, content in self.runs[path].items()
      if (not names or name in names) and (not pattern or _like(name, pattern))
    ]
    edges = [
      {"cursor": str(i), "node": self._file(f"runs/{path}/{name}", name, content)}
      for i, (name, content) in enumerate(chosen)
    ]
    files = {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}
    run = {"fileCount": len(edges), "files": files}
    return {"project": {"internalId": "1", "run": run}}

  def _file(self, path: str, name: str, content: bytes) -> dict[str, Any]:
    url = f"{self.url}/files/{path}"
    return {
      "id": name, "name": name, "url": url, "directUrl": url,
      "sizeBytes": len(content), "mimetype": "", "updatedAt": DATE,
      "md5": _md5(content),
    }  # fmt: skip

  def _on_ArtifactMembershipByName(self, variables: dict[str, Any]) -> dict[str, Any]:
    name, _, version = variables["name"].partition(":")
    name = name if version == "latest" else f"{name}:{version}"
    wanted = f"{variables['entity']}/{variables['project']}/{name}"
    found = [
      key for key in self.artifacts if key == wanted or key.startswith(f"{wanted}:")
    ]
    if not found:
      return {"project": {"artifactCollectionMembership": None}}
    collection, version = found[-1].rsplit("/", 1)[1].split(":v")
    project = {
      "id": "1", "internalId": "1", "name": variables["project"],
      "entity": {"name": variables["entity"]},
    }  # fmt: skip
    sequence = {"name": collection, "project": project}
    artifact = {
      "__typename": "Artifact", "id": found[-1], "versionIndex": int(version),
      "artifactSequence": {"__typename": "ArtifactSequence", **sequence},
      "artifactType": {"name": "prior"}, "description": None, "metadata": "{}",
      "ttlDurationSeconds": -2, "ttlIsInherited": True, "tags": [], "historyStep": None,
      "state": "COMMITTED", "size": 1, "digest": "d", "commitHash": "c", "fileCount": 1,
      "createdAt": DATE, "updatedAt": DATE, "aliases": [],
    }  # fmt: skip
    alias = {"__typename": "ArtifactAlias", "id": "a", "alias": "latest"}
    membership = {
      "__typename": "ArtifactCollectionMembership", "id": "m",
      "versionIndex": int(version), "aliases": [alias], "artifact": artifact,
      "artifactCollection": {"__typename": "ArtifactSequence", **sequence},
    }  # fmt: skip
    return {"project": {"artifactCollectionMembership": membership}}

  def _on_FetchArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:
    file = {"directUrl": f"{self.url}/manifests/{variables['id']}"}
    return {"artifact": {"currentManifest": {"file": file}}}

  def _on_GetArtifactMembershipFileUrls(
    self, variables: dict[str, Any]
  ) -> dict[str, Any]:
    path = "{entity}/{project}/{collection}:{alias}".format(**variables)
    edges = [
      {
        "node": {
          "__typename": "File",
          "name": name,
          "directUrl": f"{self.url}/files/artifacts/{path}/{name}",
        }
      }
      for name in self.artifacts[path]
    ]
    page = {"endCursor": None, "hasNextPage": False}
    membership = {"files": {"edges": edges, "pageInfo": page}}
    collection = {"__typename": "ArtifactSequence", "artifactMembership": membership}
    return {"project": {"artifactCollection": collection}}

  def get(self, path: str) -> bytes | None:
    """The content behind a URL."""
    kind, _, rest = path.strip("/").partition("/")
    if kind == "manifests":
      return json.dumps(self._manifest(rest)).encode()
    group, _, rest = rest.partition("/")
    owner, _, name = rest.rpartition("/")
    table = {"runs": self.runs, "artifacts": self.artifacts}.get(group, {})
    return table.get(owner, {}).get(name)

  def _manifest(self, path: str) -> dict[str, Any]:
    files = self.artifacts[path]
    return {
      "version": 1,
      "storagePolicy": "wandb-storage-policy-v1",
      "storagePolicyConfig": {"storageLayout": "V2"},
      "contents": {
        name: {"digest": _md5(content), "size": len(content)}
        for name, content in files.items()
      },
    }


def _like(name: str, pattern: str) -> bool:
  start, _, end = pattern.partition("%")
  return name.startswith(start) and name.endswith(end)


def _md5(content: bytes) -> str:
  return base64.b64encode(hashlib.md5(content).digest()).decode()


class _Server(ThreadingHTTPServer):
  def handle_error(self, request: Any, client_address: Any) -> None:
    """Clients that hang up are none of its business."""


@contextmanager
def serve(store: Store) -> Iterator[str]:
  """Answer on a free port of this machine; its URL."""

  class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
      body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
      if not store.keys_accepted:
        self._reply(401, b'{"errors": [{"message": "invalid key"}]}')
        return
      data = store.answer(body["query"], body.get("variables") or {})
      self._reply(200, json.dumps({"data": data}).encode())

    def do_GET(self) -> None:
      content = store.get(self.path)
      self._reply(404 if content is None else 200, content or b"")

    def _reply(self, status: int, content: bytes) -> None:
      self.send_response(status)
      self.send_header("Content-Length", str(len(content)))
      self.send_header("Content-Type", "application/json")
      self.end_headers()
      self.wfile.write(content)

    def log_message(self, format: str, *_: Any) -> None:
      del format

  server = _Server(("127.0.0.1", 0), Handler)
  store.url = f"http://127.0.0.1:{server.server_address[1]}"
  threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
  try:
    yield store.url
  finally:
    server.shutdown()
    server.server_close()


def log_in(patch: pytest.MonkeyPatch, folder: Path) -> None:
  """A login, short waits, and the client's own files in ``folder``."""
  patch.setenv("WANDB_API_KEY", "0" * 40)
  patch.setenv("WANDB_HTTP_TIMEOUT", "4")
  patch.setenv("WANDB_ERROR_REPORTING", "false")
  for name in ("CACHE", "CONFIG", "DATA"):
    patch.setenv(f"WANDB_{name}_DIR", str(folder / f"wandb_{name.lower()}"))
  for name in ("HTTP_PROXY", "HTTPS_PROXY", "https_proxy"):
    patch.delenv(name, raising=False)


def nobody_listens() -> str:
  """A URL on this machine that no server answers."""
  with socket.create_server(("127.0.0.1", 0)) as closed:
    return f"http://127.0.0.1:{closed.getsockname()[1]}"


def kept_artifacts(folder: Path) -> list[Any]:
  """The artifacts of the runs that wait in ``folder`` for ``wandb sync``: records with
  ``name``, ``type``, ``project``, ``metadata`` (JSON) and ``manifest``."""
  return [record.artifact for record in _kept(folder, "artifact")]


def kept_scalars(folder: Path) -> dict[str, dict[int, float]]:
  """The curves of the runs that wait in ``folder``: name -> step -> value."""
  curves: dict[str, dict[int, float]] = {}
  for record in _kept(folder, "history"):
    for item in record.history.item:
      name = item.key or "/".join(item.nested_key)
      if not name.startswith("_"):
        curves.setdefault(name, {})[record.history.step.num] = json.loads(
          item.value_json
        )
  return curves


def _kept(folder: Path, kind: str) -> Iterator[Any]:
  """The records of a kind of the runs that wait in ``folder``."""
  from wandb.proto import wandb_internal_pb2
  from wandb.sdk.internal.datastore import DataStore

  wandb.teardown()  # Its process may still be writing.
  for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
    store = DataStore()
    store.open_for_scan(str(path))
    while (data := store.scan_data()) is not None:
      record = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue]
      record.ParseFromString(data)
      if record.WhichOneof("record_type") == kind:
        yield record
