// Reads a topic from its first record to its last without a consumer group; prints "partition offset value".
// usage: java -cp 'libs/*' AssignReader.java BOOTSTRAP TOPIC

import java.io.PrintStream;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

public final class AssignReader {
    private static final Duration DEADLINE = Duration.ofSeconds(60);

    public static void main(String[] arguments) {
        Map<String, Object> settings = Map.of(
            ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0],
            ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, "false");
        long until = System.nanoTime() + DEADLINE.toNanos();
        PrintStream out = new PrintStream(System.out, false);
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            List<TopicPartition> partitions = consumer.partitionsFor(arguments[1]).stream()
                .map(info -> new TopicPartition(info.topic(), info.partition()))
                .toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(one -> consumer.position(one) < ends.get(one))) {
                if (System.nanoTime() > until) {
                    throw new IllegalStateException("not at the end after " + DEADLINE);
                }
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                    out.println(record.partition() + " " + record.offset() + " " + record.value());
                }
            }
        }
        out.flush();
    }
}
