/*
 * 36 threads that compute, allocate, wait for each other and for timers, and check all they do; one child process that is
 * talked to over pipes. Counts rounds in ./progress, together with collections of garbage and compiled methods. Ends at ./stop.
 */
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.io.Writer;
import java.lang.management.ManagementFactory;
import java.math.BigInteger;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.concurrent.locks.ReentrantLock;
import java.util.stream.LongStream;
import java.util.zip.CRC32;

public class Work {
	interface Job {
		/** One round; says what is wrong, or null. */
		String run(long round) throws Exception;
	}

	static final int KINDS = 6, COPIES = 6;
	static volatile boolean stop;
	static final List<String> errors = new ArrayList<>();
	static final AtomicLongArray rounds = new AtomicLongArray(KINDS * COPIES);
	static final AtomicLong ticks = new AtomicLong();

	static synchronized void error(String text) {
		if (errors.size() < 20)
			errors.add(text);
		stop = true;
	}

	/** Memory that must not change behind one's back. */
	static Job blocks(int seed) {
		byte[][] blocks = new byte[8][1 << 14];
		long[] sums = new long[blocks.length];
		Random random = new Random(seed);

		for (int i = 0; i < blocks.length; i++) {
			random.nextBytes(blocks[i]);
			sums[i] = sum(blocks[i]);
		}
		return round -> {
			for (int i = 0; i < blocks.length; i++) {
				if (sum(blocks[i]) != sums[i])
					return "block " + i + " is damaged";
				blocks[i][(int)(round % blocks[i].length)] ^= 0x5a;
				sums[i] = sum(blocks[i]);
			}
			return null;
		};
	}

	static long sum(byte[] block) {
		CRC32 crc = new CRC32();

		crc.update(block);
		return crc.getValue();
	}

	/** Integer and floating-point arithmetic, warm enough to be compiled. */
	static Job numbers(int seed) {
		long expected = collatz(seed);
		double series = zeta();

		return round -> {
			if (collatz(seed) != expected)
				return "the integers are wrong";
			return Math.abs(zeta() - series) > 0 ? "the floating-point numbers are wrong" : null;
		};
	}

	static long collatz(int seed) {
		long steps = 0;

		for (long n = 1 + seed; n < 500 + seed; n++)
			for (long x = n; x != 1; x = (x & 1) == 0 ? x / 2 : 3 * x + 1)
				steps += x % 7;
		return steps;
	}

	static double zeta() {
		double s = 0;

		for (int i = 1; i < 5000; i++)
			s += 1.0 / ((double)i * i);
		return s;
	}

	/** Garbage, and what is kept of it. */
	static Job garbage() {
		ConcurrentHashMap<String, String> kept = new ConcurrentHashMap<>();

		return round -> {
			for (int i = 0; i < 1000; i++)
				kept.put("key " + (i % 500), "value " + (i % 500) + " of " + round);
			for (int i = 0; i < 500; i++)
				if (!("value " + i + " of " + round).equals(kept.get("key " + i)))
					return "key " + i + " is " + kept.get("key " + i);
			BigInteger f = BigInteger.ONE;
			for (int i = 2; i < 60; i++)
				f = f.multiply(BigInteger.valueOf(i));
			return f.mod(BigInteger.valueOf(1_000_000_007)).intValue() == 133605669 ? null : "59! is " + f;
		};
	}

	/** Producer and consumer: nothing is lost or doubled. */
	static Job[] queue() {
		ArrayBlockingQueue<Long> queue = new ArrayBlockingQueue<>(10);
		long[] next = new long[1];
		Job put = round -> {
			for (int i = 0; i < 100 && !stop; i++)
				while (!queue.offer(round * 100 + i, 100, TimeUnit.MILLISECONDS) && !stop)
					;
			return null;
		};
		Job take = round -> {
			for (int i = 0; i < 100 && !stop; i++) {
				Long n = queue.poll(100, TimeUnit.MILLISECONDS);
				if (n != null && n != next[0]++)
					return "took " + n + " instead of " + (next[0] - 1);
			}
			return null;
		};
		return new Job[] { put, take };
	}

	static final ReentrantLock lock = new ReentrantLock();
	static long guarded, mirrored;

	static Job locks() {
		return round -> {
			for (int i = 0; i < 20; i++) {
				lock.lock();
				try {
					if (guarded != mirrored)
						return guarded + " and " + mirrored + " under one lock";
					guarded++;
					if (i % 10 == 0)
						Thread.yield();
					mirrored++;
				} finally {
					lock.unlock();
				}
			}
			return null;
		};
	}

	/** Sleeps are never shorter than they should be. */
	static Job sleeps() {
		return round -> {
			long start = System.nanoTime();

			Thread.sleep(5);
			long took = System.nanoTime() - start;
			return took < 5_000_000 ? "5 ms took " + took + " ns" : null;
		};
	}

	static void loop(int number, Job job) {
		try {
			for (long round = 0; !stop; round++) {
				String wrong = job.run(round);

				if (wrong != null)
					error("thread " + number + ", round " + round + ": " + wrong);
				rounds.incrementAndGet(number);
			}
		} catch (Throwable t) {
			error("thread " + number + ": " + t);
		}
	}

	static long collections() {
		return ManagementFactory.getGarbageCollectorMXBeans().stream().mapToLong(g -> g.getCollectionCount()).sum();
	}

	static void report() throws IOException {
		long least = LongStream.range(0, rounds.length()).map(i -> rounds.get((int)i)).min().getAsLong();
		Path temporary = Path.of("progress.tmp");

		Files.writeString(temporary, least + " " + ticks.get() + " " + collections() + " "
				  + ManagementFactory.getCompilationMXBean().getTotalCompilationTime() + "\n");
		Files.move(temporary, Path.of("progress"), StandardCopyOption.ATOMIC_MOVE);
	}

	public static void main(String[] args) throws Exception {
		List<Thread> threads = new ArrayList<>();
		Process echo = new ProcessBuilder("cat").start();
		Writer to = new OutputStreamWriter(echo.getOutputStream());
		BufferedReader from = new BufferedReader(new InputStreamReader(echo.getInputStream()));
		ScheduledExecutorService timer = Executors.newScheduledThreadPool(2);

		timer.scheduleWithFixedDelay(ticks::incrementAndGet, 5, 5, TimeUnit.MILLISECONDS);
		for (int copy = 0; copy < COPIES; copy++) {
			Job[] pair = queue();
			Job[] jobs = { blocks(copy), numbers(copy), garbage(), pair[0], pair[1], copy % 2 == 0 ? locks() : sleeps() };

			for (Job job : jobs) {
				int number = threads.size();
				Thread thread = new Thread(() -> loop(number, job), "worker " + number);

				threads.add(thread);
				thread.start();
			}
		}
		for (long n = 0; !stop; n++) {
			to.write("line " + n + "\n");
			to.flush();
			String line = from.readLine();
			if (!("line " + n).equals(line))
				error("the child answers '" + line + "' to line " + n);
			report();
			Thread.sleep(10);
			if (Files.exists(Path.of("stop")))
				stop = true;
		}
		for (Thread thread : threads)
			thread.join();
		timer.shutdownNow();
		to.close();
		if (echo.waitFor() != 0)
			error("the child ended with " + echo.exitValue());
		errors.forEach(System.out::println);
		System.out.println(errors.isEmpty() ? "PASS" : "FAIL");
	}
}
