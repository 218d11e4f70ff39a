import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.BooleanSupplier;
import java.util.function.IntConsumer;
import java.util.stream.Collectors;
import java.util.stream.StreamSupport;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** kafka-clients: the reference. */
public final class JavaClient implements Harness.Client {
    private static final Duration POLL = Duration.ofMillis(200);
    private final String bootstrap;
    private final Admin admin;

    private JavaClient(String bootstrap) {
        this.bootstrap = bootstrap;
        admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    private static <T> T await(Future<T> future) throws Exception {
        return future.get(Harness.DEADLINE.toSeconds(), TimeUnit.SECONDS);
    }

    private static ConfigResource resource(String topic) {
        return new ConfigResource(ConfigResource.Type.TOPIC, topic);
    }

    @Override
    public void createTopic(String topic, int partitions) throws Exception {
        await(admin.createTopics(List.of(new NewTopic(topic, partitions, (short) -1))).all());
    }

    private TopicDescription describe(String topic) throws Exception {
        KafkaFuture<TopicDescription> described = admin.describeTopics(List.of(topic)).topicNameValues().get(topic);
        return await(described);
    }

    @Override
    public int partitionCount(String topic) throws Exception {
        try {
            return describe(topic).partitions().size();
        } catch (ExecutionException error) {
            if (error.getCause() instanceof UnknownTopicOrPartitionException) {
                return 0;
            }
            throw error;
        }
    }

    @Override
    public int leader(String topic, int partition) throws Exception {
        return describe(topic).partitions().get(partition).leader().id();
    }

    @Override
    public void addPartitions(String topic, int total) throws Exception {
        await(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(total))).all());
    }

    @Override
    public void deleteTopic(String topic) throws Exception {
        await(admin.deleteTopics(List.of(topic)).all());
    }

    @Override
    public void deleteRecords(String topic, int partition, long before) throws Exception {
        await(admin.deleteRecords(Map.of(new TopicPartition(topic, partition), RecordsToDelete.beforeOffset(before))).all());
    }

    @Override
    public String topicConfig(String topic, String name) throws Exception {
        return await(admin.describeConfigs(List.of(resource(topic))).all()).get(resource(topic)).get(name).value();
    }

    @Override
    public void setTopicConfig(String topic, String name, String value) throws Exception {
        AlterConfigOp set = new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET);
        await(admin.incrementalAlterConfigs(Map.of(resource(topic), List.of(set))).all());
    }

    @Override
    public Collection<String> groups() throws Exception {
        return await(admin.listGroups(ListGroupsOptions.forConsumerGroups()).all()).stream().map(GroupListing::groupId).toList();
    }

    @Override
    public Harness.Group describeGroup(String group) throws Exception {
        var found = await(admin.describeConsumerGroups(List.of(group)).all()).get(group);
        return new Harness.Group(found.groupState().toString(), found.members().size());
    }

    @Override
    public void deleteGroup(String group) throws Exception {
        await(admin.deleteConsumerGroups(List.of(group)).all());
    }

    private KafkaProducer<String, String> producer(Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(settings);
        all.put("bootstrap.servers", bootstrap);
        return new KafkaProducer<>(all, new StringSerializer(), new StringSerializer());
    }

    private void produce(String topic, List<Harness.Message> messages, Map<String, Object> settings) throws Exception {
        try (var producer = producer(settings)) {
            List<Future<?>> sent = new ArrayList<>();
            for (Harness.Message message : messages) {
                var one = new ProducerRecord<>(topic, message.partition(), message.timestamp(), message.key(), message.value());
                for (String header : message.headers()) {
                    String[] sides = header.split("=", 2);
                    one.headers().add(sides[0], sides[1].getBytes(StandardCharsets.UTF_8));
                }
                sent.add(producer.send(one));
            }
            for (Future<?> future : sent) {
                await(future);
            }
        }
    }

    @Override
    public void produce(String topic, List<Harness.Message> messages, String codec) throws Exception {
        produce(topic, messages, Map.of("compression.type", codec, "enable.idempotence", false));
    }

    @Override
    public void produceIdempotent(String topic, List<Harness.Message> messages) throws Exception {
        produce(topic, messages, Map.of("enable.idempotence", true));
    }

    @Override
    public void produceWhile(String topic, BooleanSupplier going, IntConsumer acknowledged) throws Exception {
        Semaphore window = new Semaphore(Harness.WINDOW);
        AtomicReference<Exception> failure = new AtomicReference<>();
        try (var producer = producer(Map.of())) {
            for (int number = 0; going.getAsBoolean() && failure.get() == null; number++) {
                int sent = number;
                Harness.expect(window.tryAcquire(2 * Harness.DEADLINE.toSeconds(), TimeUnit.SECONDS), "waited for acknowledgements");
                producer.send(new ProducerRecord<>(topic, 0, null, "" + number), (metadata, error) -> {
                    if (error == null) {
                        acknowledged.accept(sent);
                    } else {
                        failure.set(error);
                    }
                    window.release();
                });
            }
        }
        if (failure.get() != null) {
            throw failure.get();
        }
    }

    private KafkaConsumer<String, String> consumer(Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(settings);
        all.putAll(Map.of("bootstrap.servers", bootstrap, "auto.offset.reset", "earliest", "metadata.max.age.ms", 2000));
        return new KafkaConsumer<>(all, new StringDeserializer(), new StringDeserializer());
    }

    private static String text(Header header) {
        return header.key() + "=" + new String(header.value(), StandardCharsets.UTF_8);
    }

    private static List<Harness.Message> poll(KafkaConsumer<String, String> consumer) {
        List<Harness.Message> messages = new ArrayList<>();
        consumer.poll(POLL).forEach(one -> messages.add(new Harness.Message(one.partition(), one.key(), one.value(),
            StreamSupport.stream(one.headers().spliterator(), false).map(JavaClient::text).toList(), one.timestamp(), one.offset())));
        return messages;
    }

    @Override
    public List<Harness.Message> read(String topic) throws Exception {
        List<Harness.Message> messages = new ArrayList<>();
        try (var consumer = consumer(Map.of())) {
            var partitions = consumer.partitionsFor(topic).stream().map(one -> new TopicPartition(topic, one.partition())).toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            Harness.waitUntil("the end of " + topic, () -> {
                messages.addAll(poll(consumer));
                return partitions.stream().allMatch(one -> consumer.position(one) >= ends.get(one));
            });
        }
        return messages;
    }

    @Override
    public Harness.Message readFromTime(String topic, long timestamp) throws Exception {
        List<Harness.Message> messages = new ArrayList<>();
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var consumer = consumer(Map.of())) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, consumer.offsetsForTimes(Map.of(partition, timestamp)).get(partition).offset());
            Harness.waitUntil("a record", () -> messages.addAll(poll(consumer)));
        }
        return messages.get(0);
    }

    @Override
    public Harness.Source member(String topic, String group) {
        KafkaConsumer<String, String> consumer = consumer(Map.of("group.id", group));
        consumer.subscribe(List.of(topic));
        return new Harness.Source() {
            @Override
            public List<Harness.Message> poll() {
                return JavaClient.poll(consumer);
            }

            @Override
            public Set<Integer> owned() {
                return consumer.assignment().stream().map(TopicPartition::partition).collect(Collectors.toSet());
            }

            @Override
            public void close() {
                consumer.close();
            }
        };
    }

    @Override
    public List<Harness.Message> take(String topic, String group, int count) throws Exception {
        List<Harness.Message> messages = new ArrayList<>();
        try (var consumer = consumer(Map.of("group.id", group, "enable.auto.commit", false, "max.poll.records", 20))) {
            consumer.subscribe(List.of(topic));
            Harness.waitUntil(count + " records of " + topic + " in group " + group, () -> {
                messages.addAll(poll(consumer));
                return messages.size() >= count;
            });
            consumer.commitSync();
        }
        return messages;
    }

    public static void main(String[] arguments) throws Exception {
        Harness.run("java", new JavaClient(arguments[1]), arguments);
    }
}
