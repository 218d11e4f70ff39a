import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Produced;

/** Kafka Streams counts words at_least_once, with a repartition topic and a changelog; then it is stopped, its state on disk lost, and goes on. */
public final class Streams {
    private static final String[] WORDS = {"helix", "log", "raft"};
    private final String bootstrap;
    private final String lines;
    private final String counts;
    private final String application;

    private Streams(String bootstrap, String prefix) {
        this.bootstrap = bootstrap;
        lines = prefix + "-lines";
        counts = prefix + "-counts";
        application = prefix + "-application";
    }

    private Topology topology() {
        StreamsBuilder builder = new StreamsBuilder();
        builder.<String, String>stream(lines)
            .flatMapValues(line -> Arrays.asList(line.split(" ")))
            .groupBy((key, word) -> word, Grouped.as("words"))
            .count()
            .toStream()
            .to(counts, Produced.with(Serdes.String(), Serdes.Long()));
        return builder.build();
    }

    private KafkaStreams start(Path directory) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.AT_LEAST_ONCE);
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 500);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, directory.toString());
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        KafkaStreams streams = new KafkaStreams(topology(), settings);
        streams.start();
        return streams;
    }

    private void write(int first, int count) {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap);
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            IntStream.range(first, first + count).forEach(number -> producer.send(new ProducerRecord<>(lines, "" + number, line(number))));
        }
    }

    /** Line n holds "helix" once, "log" if n is even, and "raft" if it is divisible by five. */
    private static String line(int number) {
        return WORDS[0] + (number % 2 == 0 ? " " + WORDS[1] : "") + (number % 5 == 0 ? " " + WORDS[2] : "");
    }

    private static Map<String, Long> expected(int lines) {
        return Map.of(WORDS[0], (long) lines, WORDS[1], (lines + 1) / 2L, WORDS[2], (lines + 4) / 5L);
    }

    /** Waits until the newest counts are those of so many lines. None may be higher: nothing failed, so nothing is counted twice. */
    private void awaitCounts(int total) throws Exception {
        Map<String, Long> newest = new HashMap<>();
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap);
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new LongDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            consumer.partitionsFor(counts).forEach(one -> partitions.add(new TopicPartition(counts, one.partition())));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            try {
                Harness.waitUntil("the counts of " + total + " lines", () -> {
                    consumer.poll(Duration.ofMillis(200)).forEach(one -> newest.put(one.key(), one.value()));
                    newest.forEach((word, count) -> Harness.expect(count <= expected(total).get(word), word + " is counted too often: " + count));
                    return newest.equals(expected(total));
                });
            } catch (IllegalStateException late) {
                throw new IllegalStateException(late.getMessage() + "; there is " + newest, late);
            }
        }
    }

    private void count(int first, int count) throws Exception {
        Path directory = Files.createTempDirectory("streams");
        try (KafkaStreams streams = start(directory)) {
            write(first, count);
            awaitCounts(first + count);
            Harness.expect(streams.close(Harness.DEADLINE), "it did not stop");
        }
    }

    private void create() throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(List.of(new NewTopic(lines, 3, (short) -1), new NewTopic(counts, 3, (short) -1))).all().get();
            Harness.waitUntil("the topics", () -> admin.listTopics().names().get().containsAll(List.of(lines, counts)));
        }
    }

    public static void main(String[] arguments) throws Exception {
        System.out.println("version " + Harness.version());
        Harness harness = new Harness(null, "");
        Streams streams = new Streams(arguments[1], arguments[2] + "-streams");
        harness.check("word-count", () -> {
            streams.create();
            streams.count(0, 1000);
        });
        harness.check("resume-with-lost-state", () -> streams.count(1000, 1000));
        harness.exit();
    }
}
