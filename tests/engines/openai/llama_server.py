"""llama.cpp's own server with the packaged model, as a process: prints its address, then serves.

It ends when its standard input is closed, so it cannot outlive the test.
"""

from __future__ import annotations

import sys

import xllamacpp

from inferq.engines.llamacpp.files import find_model


def main() -> None:
    """Serve."""
    params = xllamacpp.CommonParams()
    params.model.path = str(find_model(None))
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = 4096
    params.n_parallel = 4
    params.warmup = False
    params.endpoint_metrics = True
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
