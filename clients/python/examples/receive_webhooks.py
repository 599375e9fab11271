"""Receives webhooks: WEBHOOK_SECRET=whsec_... receive_webhooks.py [PORT]. Needs `pip install standardwebhooks`."""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

SHOWN = ("instance_id", "from", "to", "revision", "cause", "severity", "verdict", "simulated", "reason")

webhook = Webhook(os.environ["WEBHOOK_SECRET"])
seen: set[str] = set()  # at least once: an id may come twice, with the same content


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            event = webhook.verify(body, {name.lower(): value for name, value in self.headers.items()})
        except WebhookVerificationError as error:
            print(f"refused: {error}", flush=True)
            self.send_response(401)
        else:
            if self.headers["webhook-id"] not in seen:
                seen.add(self.headers["webhook-id"])
                data = event["data"]
                told = [f"{key}={data[key]}" for key in SHOWN if key in data]
                print(f"verified {event['type']}", *told, flush=True)
            self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8090), Receiver)
print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
