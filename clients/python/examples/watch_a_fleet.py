"""Watches all registered instances until it is interrupted."""

import asyncio

import perfagent
from perfagent import measured


async def main() -> None:
    async with perfagent.aio.Client() as client, client.watch_metrics(view="basic") as watch:
        async for event in watch:
            state = perfagent.InstanceState.Name(event.state).removeprefix("INSTANCE_STATE_")
            tokens = measured(event.measurement.throughput_metrics, "tokens_per_second")
            usage = measured(event.measurement.gpu_metrics, "cache_usage_perc")
            print(event.instance_id, state, f"{tokens} tokens/s, KV cache {usage} %", event.failure.message, flush=True)


asyncio.run(main())
