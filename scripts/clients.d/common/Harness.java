import java.io.IOException;
import java.io.InputStream;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.BooleanSupplier;
import java.util.function.IntConsumer;
import java.util.stream.IntStream;

/** The checks that every client goes through, for those written in Java; README.md beside it says what each asks. */
public final class Harness {
    static final Duration DEADLINE = Duration.ofSeconds(60);
    static final int WINDOW = 100;
    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    private static final int PER_CODEC = 200;
    private static final int SHARED_PARTITIONS = 3;
    private static final int GROUP_PARTITIONS = 6;
    private static final int WAVE = 300;
    private static final int RESUME_RECORDS = 300;
    private static final int RESUME_FIRST = 120;
    private static final int TIMED_RECORDS = 100;
    private static final long TIMED_STEP_MS = 1000;
    private static final int KILL_AFTER = 1000;

    /** What is written (timestamp null for now, offset -1) and what is read; headers are "key=value". */
    record Message(int partition, String key, String value, List<String> headers, Long timestamp, long offset) {}

    record Group(String state, int members) {}

    /** What a client's program provides. */
    interface Client {
        void createTopic(String topic, int partitions) throws Exception;
        /** 0 if there is no such topic. */
        int partitionCount(String topic) throws Exception;
        int leader(String topic, int partition) throws Exception;
        void addPartitions(String topic, int total) throws Exception;
        void deleteTopic(String topic) throws Exception;
        void deleteRecords(String topic, int partition, long before) throws Exception;
        String topicConfig(String topic, String name) throws Exception;
        void setTopicConfig(String topic, String name, String value) throws Exception;
        Collection<String> groups() throws Exception;
        Group describeGroup(String group) throws Exception;
        void deleteGroup(String group) throws Exception;
        /** All are acknowledged when it returns. */
        void produce(String topic, List<Message> messages, String codec) throws Exception;
        void produceIdempotent(String topic, List<Message> messages) throws Exception;
        /** Writes numbers 0, 1, ... into partition 0, and tells which are acknowledged. */
        void produceWhile(String topic, BooleanSupplier going, IntConsumer acknowledged) throws Exception;
        List<Message> read(String topic) throws Exception;
        /** The first record of partition 0 at or after the time, found by seeking. */
        Message readFromTime(String topic, long timestamp) throws Exception;
        /** A member that is polled by a thread of its own. */
        Source member(String topic, String group);
        /** At least count as a group's only member; commits exactly what it returns. */
        List<Message> take(String topic, String group, int count) throws Exception;
    }

    /** A consumer as a member's thread sees it. */
    interface Source {
        List<Message> poll();
        Set<Integer> owned();
        void close();
    }

    interface Body {
        void run() throws Exception;
    }

    interface Condition {
        boolean holds() throws Exception;
    }

    private static final class Member {
        final Collection<Message> messages = new ConcurrentLinkedQueue<>();
        volatile Set<Integer> owned = Set.of();
        private final AtomicBoolean going = new AtomicBoolean(true);
        private final AtomicReference<RuntimeException> failure = new AtomicReference<>();
        private final Thread thread;

        Member(Source source) {
            thread = new Thread(() -> {
                try {
                    while (going.get()) {
                        messages.addAll(source.poll());
                        owned = source.owned();
                    }
                    source.close();
                } catch (RuntimeException error) {
                    failure.set(error);
                }
            });
            thread.setDaemon(true);
            thread.start();
        }

        Set<Integer> owned() {
            if (failure.get() != null) {
                throw failure.get();
            }
            return owned;
        }

        void leave() throws InterruptedException {
            going.set(false);
            thread.join(DEADLINE.toMillis());
            expect(!thread.isAlive(), "waited " + DEADLINE + " for a member to leave its group");
            owned();
        }
    }

    private final Client client;
    private final String prefix;
    private boolean failed;

    Harness(Client client, String prefix) {
        this.client = client;
        this.prefix = prefix;
    }

    static void expect(boolean condition, String otherwise) {
        if (!condition) {
            throw new IllegalStateException(otherwise);
        }
    }

    static void expectEqual(Object actual, Object expected, String what) {
        expect(Objects.equals(actual, expected), what + ": " + actual + " instead of " + expected);
    }

    static void waitUntil(String what, Condition condition) throws Exception {
        long until = System.nanoTime() + DEADLINE.toNanos();
        while (!condition.holds()) {
            expect(System.nanoTime() < until, "waited " + DEADLINE + " for " + what);
            Thread.sleep(50);
        }
    }

    static List<Message> numbered(int count, int partitions, int first) {
        return IntStream.range(first, first + count)
            .mapToObj(number -> new Message(number % partitions, "key-" + number, "" + number, List.of(), null, -1))
            .toList();
    }

    static List<Integer> numbers(Collection<Message> messages) {
        return messages.stream().map(message -> Integer.valueOf(message.value())).toList();
    }

    private static List<Integer> upTo(int first, int end) {
        return IntStream.range(first, end).boxed().toList();
    }

    private static Message shared(String codec, int number) {
        List<String> headers = List.of("codec=" + codec, "empty=", "number=" + number);
        String value = codec + " " + number + " " + "helix ".repeat(20);
        return new Message(number % SHARED_PARTITIONS, "key-" + number, value, headers, null, -1);
    }

    /** All that was written with the codecs is there once, unchanged, in its partition's order. */
    private static void verifyShared(List<Message> messages, List<String> codecs) {
        Map<String, Message> written = new HashMap<>();
        codecs.forEach(codec -> upTo(0, PER_CODEC).forEach(number -> written.put(shared(codec, number).value(), shared(codec, number))));
        Map<String, Integer> last = new HashMap<>();
        for (Message message : messages) {
            Message expected = written.remove(message.value());
            expect(expected != null && expected.partition() == message.partition(), message + " is there twice or was not written");
            expectEqual(message.key(), expected.key(), "key of " + message);
            expectEqual(message.headers(), expected.headers(), "headers of " + message);
            String[] words = message.value().split(" ");
            Integer before = last.put(words[0] + message.partition(), Integer.valueOf(words[1]));
            expect(before == null || before < Integer.parseInt(words[1]), message + " is out of order");
        }
        expect(written.isEmpty(), written.size() + " of " + codecs.size() * PER_CODEC + " records are missing");
    }

    void check(String name, Body body) {
        try {
            body.run();
            System.out.println("ok " + name);
        } catch (UnsupportedOperationException why) {
            System.out.println("n/a " + name + ": " + why.getMessage());
        } catch (Exception error) {
            error.printStackTrace();
            failed = true;
            Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
            System.out.println("FAIL " + name + ": " + cause.toString().replace('\n', ' '));
        }
    }

    private String topic(String name, int partitions) throws Exception {
        String topic = prefix + "-" + name;
        client.createTopic(topic, partitions);
        awaitPartitions(topic, partitions);
        return topic;
    }

    private void awaitPartitions(String topic, int count) throws Exception {
        waitUntil(topic + " to have " + count + " partitions", () -> client.partitionCount(topic) == count);
    }

    void all() {
        topics();
        codecs();
        check("idempotent", this::idempotent);
        check("seek-time", this::seekTime);
        check("group-rebalance", this::groupRebalance);
        check("commit-resume", this::commitResume);
        groups();
        check("leader-kill", this::leaderKill);
    }

    private void topics() {
        String topic = prefix + "-admin";
        check("create-topic", () -> client.createTopic(topic, 2));
        check("describe-topic", () -> awaitPartitions(topic, 2));
        check("add-partitions", () -> {
            client.addPartitions(topic, 4);
            awaitPartitions(topic, 4);
        });
        check("describe-config", () -> expectEqual(client.topicConfig(topic, "cleanup.policy"), "delete", "cleanup.policy"));
        check("alter-config", () -> {
            client.setTopicConfig(topic, "retention.ms", "3600000");
            waitUntil("retention.ms to be 3600000", () -> client.topicConfig(topic, "retention.ms").equals("3600000"));
        });
        check("delete-records", () -> {
            client.produce(topic, numbered(20, 1, 0), "none");
            client.deleteRecords(topic, 0, 12);
            expectEqual(numbers(client.read(topic)), upTo(12, 20), "what is left");
        });
        check("delete-topic", () -> {
            client.deleteTopic(topic);
            awaitPartitions(topic, 0);
        });
    }

    private void codecs() {
        List<String> done = new ArrayList<>();
        AtomicReference<String> shared = new AtomicReference<>();
        for (String codec : CODECS) {
            check("produce-" + codec, () -> {
                if (shared.get() == null) {
                    shared.set(topic("shared", SHARED_PARTITIONS));
                }
                client.produce(shared.get(), upTo(0, PER_CODEC).stream().map(number -> shared(codec, number)).toList(), codec);
                done.add(codec);
            });
        }
        check("headers", () -> verifyShared(client.read(shared.get()), done));
    }

    private void idempotent() throws Exception {
        String topic = topic("idempotent", 1);
        client.produceIdempotent(topic, numbered(1000, 1, 0));
        expectEqual(numbers(client.read(topic)), upTo(0, 1000), "numbers");
    }

    private void seekTime() throws Exception {
        String topic = topic("timed", 1);
        long start = System.currentTimeMillis() - TIMED_RECORDS * TIMED_STEP_MS;
        client.produce(topic, upTo(0, TIMED_RECORDS).stream()
            .map(number -> new Message(0, "key", "" + number, List.of(), start + number * TIMED_STEP_MS, -1))
            .toList(), "none");
        Message found = client.readFromTime(topic, start + 50 * TIMED_STEP_MS + 1);
        expectEqual(found, new Message(0, "key", "51", List.of(), start + 51 * TIMED_STEP_MS, 51), "the first record after the time");
    }

    private void groupRebalance() throws Exception {
        String topic = topic("group", GROUP_PARTITIONS);
        String group = prefix + "-group";
        List<Member> members = new ArrayList<>();
        List<Member> everyone = new ArrayList<>();
        Body join = () -> {
            members.add(new Member(client.member(topic, group)));
            everyone.add(members.get(members.size() - 1));
        };
        Body settle = () -> waitUntil(members.size() + " members to share " + GROUP_PARTITIONS + " partitions", () -> {
            List<Set<Integer>> owned = members.stream().map(Member::owned).toList();
            Set<Integer> union = new HashSet<>();
            owned.forEach(union::addAll);
            return owned.stream().noneMatch(Set::isEmpty) && union.size() == GROUP_PARTITIONS
                && owned.stream().mapToInt(Set::size).sum() == GROUP_PARTITIONS;
        });
        try {
            join.run();
            join.run();
            settle.run();
            wave(topic, everyone, 0);
            join.run();
            settle.run();
            wave(topic, everyone, WAVE);
            members.remove(0).leave();
            settle.run();
            wave(topic, everyone, 2 * WAVE);
            for (Member member : members) {
                expect(numbers(member.messages).stream().anyMatch(number -> number >= 2 * WAVE), "a member got nothing");
            }
        } finally {
            for (Member member : members) {
                member.leave();
            }
        }
    }

    private void wave(String topic, List<Member> everyone, int first) throws Exception {
        client.produce(topic, numbered(WAVE, GROUP_PARTITIONS, first), "none");
        waitUntil(first + WAVE + " records", () -> {
            Set<Integer> seen = new HashSet<>();
            everyone.forEach(member -> seen.addAll(numbers(member.messages)));
            return seen.size() == first + WAVE;
        });
    }

    private void commitResume() throws Exception {
        String topic = topic("resume", SHARED_PARTITIONS);
        client.produce(topic, numbered(RESUME_RECORDS, SHARED_PARTITIONS, 0), "none");
        List<Message> all = new ArrayList<>(client.take(topic, topic, RESUME_FIRST));
        expect(all.size() < RESUME_RECORDS, "the first member took everything");
        all.addAll(client.take(topic, topic, RESUME_RECORDS - all.size()));
        expectEqual(numbers(all).stream().sorted().toList(), upTo(0, RESUME_RECORDS), "numbers");
    }

    private void groups() {
        String group = prefix + "-resume";
        check("list-groups", () -> expect(client.groups().contains(group), group + " is not listed"));
        check("describe-group", () -> {
            waitUntil("the group to be empty", () -> client.describeGroup(group).equals(new Group("Empty", 0)));
            Member member = new Member(client.member(group, group));
            try {
                waitUntil("one member in a stable group", () -> client.describeGroup(group).equals(new Group("Stable", 1)));
            } finally {
                member.leave();
            }
        });
        check("delete-group", () -> {
            client.deleteGroup(group);
            expect(!client.groups().contains(group), group + " is still listed");
        });
    }

    private void leaderKill() throws Exception {
        String control = System.getenv("HELIX_CLIENTS_CONTROL");
        if (control == null || control.isEmpty()) {
            throw new UnsupportedOperationException("no cluster whose nodes may be killed");
        }
        String topic = topic("kill", 1);
        Collection<Integer> acknowledged = new ConcurrentLinkedQueue<>();
        AtomicBoolean going = new AtomicBoolean(true);
        AtomicReference<Exception> failure = new AtomicReference<>();
        Thread producer = new Thread(() -> {
            try {
                client.produceWhile(topic, going::get, acknowledged::add);
            } catch (Exception error) {
                failure.set(error);
            }
        });
        producer.setDaemon(true);
        producer.start();
        Body more = () -> {
            int enough = acknowledged.size() + KILL_AFTER;
            waitUntil(enough + " acknowledged records", () -> failure.get() != null || acknowledged.size() >= enough);
        };
        more.run();
        String leader = String.valueOf(client.leader(topic, 0));
        expectEqual(new ProcessBuilder(control, "kill", leader).start().waitFor(), 0, "status of kill");
        try {
            more.run();
        } finally {
            going.set(false);
            expectEqual(new ProcessBuilder(control, "run", leader).start().waitFor(), 0, "status of run");
        }
        producer.join(DEADLINE.toMillis());
        expect(!producer.isAlive(), "the producer does not end");
        if (failure.get() != null) {
            throw failure.get();
        }
        List<Integer> read = numbers(client.read(topic));
        Set<Integer> lost = new HashSet<>(acknowledged);
        read.forEach(lost::remove);
        expect(lost.isEmpty(), lost.size() + " of " + acknowledged.size() + " acknowledged records are lost");
        expectEqual(read, List.copyOf(new TreeSet<>(read)), "what an idempotent producer wrote");
    }

    /** Of kafka-clients, as its archive says. */
    static String version() throws IOException {
        Properties properties = new Properties();
        try (InputStream file = Harness.class.getResourceAsStream("/kafka/kafka-version.properties")) {
            properties.load(file);
        }
        return properties.getProperty("version");
    }

    /** arguments: check or read, bootstrap, run, then WRITER=CODEC,... for what others wrote. */
    static void run(String name, Client client, String[] arguments) throws IOException {
        System.out.println("version " + version());
        Harness harness = new Harness(client, arguments[2] + "-" + name);
        if (arguments[0].equals("check")) {
            harness.all();
        }
        for (String argument : Arrays.asList(arguments).subList(3, arguments.length)) {
            String[] written = argument.split("=");
            String topic = arguments[2] + "-" + written[0] + "-shared";
            harness.check("read-" + written[0], () -> verifyShared(client.read(topic), List.of(written[1].split(","))));
        }
        harness.exit();
    }

    /** What a failed client left running must not keep the process alive. */
    void exit() {
        System.exit(failed ? 1 : 0);
    }
}
