"""8 threads over 200 MiB of data that they re-check all the time; counts rounds in DIR/progress. Ends at DIR/stop."""
import hashlib
import os
import sys
import threading
import time

THREADS, MIB = 8, 200
BLOCK = 1 << 20


def block(number):
    seed = hashlib.sha256(str(number).encode()).digest()
    return bytearray(seed * (BLOCK // len(seed)))


blocks = [block(n) for n in range(MIB)]
digests = [hashlib.blake2b(b).digest() for b in blocks]
rounds = [0] * THREADS
errors = []


def work(thread):
    generation = 0
    mine = range(thread, MIB, THREADS)
    while not os.path.exists("stop"):
        for n in mine:
            if hashlib.blake2b(blocks[n]).digest() != digests[n]:
                errors.append(f"block {n} is damaged in round {rounds[thread]}")
                return
            # Something changes in every block in every round.
            generation += 1
            blocks[n][generation % BLOCK] ^= 0x5A
            digests[n] = hashlib.blake2b(blocks[n]).digest()
        rounds[thread] += 1


threads = [threading.Thread(target=work, args=(t,), name=f"worker {t}") for t in range(THREADS)]
for t in threads:
    t.start()
while any(t.is_alive() for t in threads) and not errors:
    with open("progress.tmp", "w") as f:
        f.write(f"{min(rounds)}\n")
    os.rename("progress.tmp", "progress")
    time.sleep(0.02)
for t in threads:
    t.join()
print("\n".join(errors) if errors else f"all blocks right in rounds {min(rounds)} to {max(rounds)}")
print("FAIL" if errors else "PASS", flush=True)
sys.exit(bool(errors))
