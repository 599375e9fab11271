"""An engine that is not there: a vLLM that has done more at each scrape."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


class Engine:
    def __init__(self, seconds_to_first_token: float = 0.1) -> None:
        self.status = 200
        self.body: str | None = None
        self.answers = threading.Event()
        """Cleared, it lets scrapes wait."""
        self.answers.set()
        self._scrapes = 0
        self._seconds_to_first_token = seconds_to_first_token
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                engine.answers.wait()
                is_metrics = self.path.split("?")[0] == "/metrics"
                body = (engine.body or engine.next_body()).encode() if is_metrics else b""
                self.send_response(engine.status if is_metrics else 404)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """The agent may hang up at any time."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def next_body(self) -> str:
        """Each scrape: 10 requests more, 1,000 generated tokens, a little noise in the latency."""
        self._scrapes += 1
        done, labels = 10 * self._scrapes, 'engine="0",model_name="m"'
        latency = self._seconds_to_first_token * (1 + 0.01 * (self._scrapes % 3))
        buckets = "".join(
            f'vllm:time_to_first_token_seconds_bucket{{{labels},le="{le}"}} {done if latency <= float(le) else 0}\n'
            for le in ("0.05", "0.5", "5.0", "+Inf")
        )
        return (
            "# TYPE vllm:num_requests_running gauge\n"
            f"vllm:num_requests_running{{{labels}}} 2\n"
            "# TYPE vllm:num_requests_waiting gauge\n"
            f"vllm:num_requests_waiting{{{labels}}} 1\n"
            "# TYPE vllm:kv_cache_usage_perc gauge\n"
            f"vllm:kv_cache_usage_perc{{{labels}}} 0.25\n"
            "# TYPE vllm:generation_tokens_total counter\n"
            f"vllm:generation_tokens_total{{{labels}}} {100 * done}\n"
            "# TYPE vllm:prompt_tokens_total counter\n"
            f"vllm:prompt_tokens_total{{{labels}}} {200 * done}\n"
            "# TYPE vllm:request_success_total counter\n"
            f'vllm:request_success_total{{{labels},finished_reason="stop"}} {done}\n'
            "# TYPE vllm:time_to_first_token_seconds histogram\n"
            f"{buckets}"
            f"vllm:time_to_first_token_seconds_count{{{labels}}} {done}\n"
            f"vllm:time_to_first_token_seconds_sum{{{labels}}} {done * latency}\n"
        )
