// kafka-go: its Writer, Reader, ConsumerGroup and Client.
package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"

	harness "helix/clients/common"
)

const maxWait = 200 * time.Millisecond

var compressions = map[string]kafka.Compression{"gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}

type client struct {
	bootstrap []string
	admin     kafka.Client
}

func connect(bootstrap []string) (harness.Client, error) {
	transport := &kafka.Transport{MetadataTTL: time.Second}
	return &client{bootstrap, kafka.Client{Addr: kafka.TCP(bootstrap...), Timeout: harness.Deadline, Transport: transport}}, nil
}

func (client *client) Idempotent() bool { return false }

// first joins the error of a call with those that its response holds.
func first(err error, each map[string]error) error {
	for _, one := range each {
		err = errors.Join(err, one)
	}
	return err
}

func (client *client) CreateTopic(topic string, partitions int32) error {
	config := kafka.TopicConfig{Topic: topic, NumPartitions: int(partitions), ReplicationFactor: -1}
	response, err := client.admin.CreateTopics(context.Background(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{config}})
	if err != nil {
		return err
	}
	return first(nil, response.Errors)
}

func (client *client) describe(topic string) (kafka.Topic, error) {
	response, err := client.admin.Metadata(context.Background(), &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return kafka.Topic{}, err
	}
	found := response.Topics[0]
	if errors.Is(found.Error, kafka.UnknownTopicOrPartition) {
		return found, nil
	}
	return found, found.Error
}

func (client *client) PartitionCount(topic string) (int32, error) {
	found, err := client.describe(topic)
	return int32(len(found.Partitions)), err
}

func (client *client) Leader(topic string, partition int32) (int32, error) {
	found, err := client.describe(topic)
	for _, one := range found.Partitions {
		if one.ID == int(partition) {
			return int32(one.Leader.ID), err
		}
	}
	return 0, errors.Join(err, errors.New("no such partition"))
}

func (client *client) AddPartitions(topic string, total int32) error {
	config := kafka.TopicPartitionsConfig{Name: topic, Count: total}
	response, err := client.admin.CreatePartitions(context.Background(), &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{config}})
	if err != nil {
		return err
	}
	return first(nil, response.Errors)
}

func (client *client) DeleteTopic(topic string) error {
	response, err := client.admin.DeleteTopics(context.Background(), &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err != nil {
		return err
	}
	return first(nil, response.Errors)
}

func (client *client) DeleteRecords(string, int32, int64) error {
	return harness.Cannot("the client has no DeleteRecords")
}

func (client *client) TopicConfig(topic, name string) (string, error) {
	resource := kafka.DescribeConfigRequestResource{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{name}}
	response, err := client.admin.DescribeConfigs(context.Background(), &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{resource}})
	if err != nil {
		return "", err
	}
	if err := response.Resources[0].Error; err != nil {
		return "", err
	}
	return response.Resources[0].ConfigEntries[0].ConfigValue, nil
}

func (client *client) SetTopicConfig(topic, name, value string) error {
	resource := kafka.IncrementalAlterConfigsRequestResource{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic,
		Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: name, Value: value, ConfigOperation: kafka.ConfigOperationSet}}}
	response, err := client.admin.IncrementalAlterConfigs(context.Background(),
		&kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{resource}})
	if err != nil {
		return err
	}
	return response.Resources[0].Error
}

func (client *client) Groups() (names []string, err error) {
	response, err := client.admin.ListGroups(context.Background(), &kafka.ListGroupsRequest{})
	if err != nil {
		return nil, err
	}
	for _, group := range response.Groups {
		names = append(names, group.GroupID)
	}
	return names, response.Error
}

func (client *client) DescribeGroup(group string) (string, int, error) {
	response, err := client.admin.DescribeGroups(context.Background(), &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})
	if err != nil {
		return "", 0, err
	}
	found := response.Groups[0]
	return found.GroupState, len(found.Members), found.Error
}

func (client *client) DeleteGroup(group string) error {
	response, err := client.admin.DeleteGroups(context.Background(), &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})
	if err != nil {
		return err
	}
	return first(nil, response.Errors)
}

func (client *client) writer(topic, codec string) *kafka.Writer {
	// It takes no partition from a message: the number in the key says which.
	byKey := kafka.BalancerFunc(func(message kafka.Message, partitions ...int) int {
		var number int
		fmt.Sscanf(string(message.Key), "key-%d", &number)
		return number % len(partitions)
	})
	return &kafka.Writer{Addr: client.admin.Addr, Topic: topic, Balancer: byKey, RequiredAcks: kafka.RequireAll, Compression: compressions[codec],
		BatchTimeout: 5 * time.Millisecond, MaxAttempts: 30, Transport: client.admin.Transport}
}

func (client *client) Produce(topic string, records []harness.Record, codec string) error {
	writer := client.writer(topic, codec)
	defer writer.Close()
	var messages []kafka.Message
	for _, record := range records {
		message := kafka.Message{Key: record.Key, Value: record.Value, Time: record.Time}
		for _, header := range record.Headers {
			message.Headers = append(message.Headers, kafka.Header(header))
		}
		messages = append(messages, message)
	}
	ctx, cancel := harness.Within()
	defer cancel()
	return writer.WriteMessages(ctx, messages...)
}

func (client *client) ProduceIdempotent(string, []harness.Record) error {
	return harness.Cannot("the client has no idempotent producer")
}

// ProduceWhile writes batches again that were not acknowledged: that is its user's task.
func (client *client) ProduceWhile(topic string, going func() bool, acknowledged func(int)) error {
	writer := client.writer(topic, "none")
	defer writer.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 3*harness.Deadline)
	defer cancel()
	for first := 0; going(); first += harness.Window {
		var batch []kafka.Message
		for number := first; number < first+harness.Window; number++ {
			batch = append(batch, kafka.Message{Value: []byte(strconv.Itoa(number))})
		}
		for {
			err := writer.WriteMessages(ctx, batch...)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return err
			}
		}
		for number := first; number < first+harness.Window; number++ {
			acknowledged(number)
		}
	}
	return nil
}

func recordOf(message kafka.Message) harness.Record {
	record := harness.Record{Partition: int32(message.Partition), Offset: message.Offset, Key: message.Key, Value: message.Value, Time: message.Time}
	for _, header := range message.Headers {
		record.Headers = append(record.Headers, harness.Header(header))
	}
	return record
}

func (client *client) partitionReader(topic string, partition int) *kafka.Reader {
	return kafka.NewReader(kafka.ReaderConfig{Brokers: client.bootstrap, Topic: topic, Partition: partition, MaxWait: maxWait})
}

func (client *client) Read(topic string) (records []harness.Record, err error) {
	ctx, cancel := harness.Within()
	defer cancel()
	count, err := client.PartitionCount(topic)
	if err != nil {
		return nil, err
	}
	for partition := range int(count) {
		asked := map[string][]kafka.OffsetRequest{topic: {kafka.FirstOffsetOf(partition), kafka.LastOffsetOf(partition)}}
		offsets, err := client.admin.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: asked})
		if err != nil {
			return nil, err
		}
		reader, limits := client.partitionReader(topic, partition), offsets.Topics[topic][0]
		defer reader.Close()
		reader.SetOffset(limits.FirstOffset)
		for reader.Offset() < limits.LastOffset {
			message, err := reader.ReadMessage(ctx)
			if err != nil {
				return nil, err
			}
			records = append(records, recordOf(message))
		}
	}
	return records, nil
}

func (client *client) ReadFromTime(topic string, from time.Time) (harness.Record, error) {
	ctx, cancel := harness.Within()
	defer cancel()
	reader := client.partitionReader(topic, 0)
	defer reader.Close()
	if err := reader.SetOffsetAt(ctx, from); err != nil {
		return harness.Record{}, err
	}
	message, err := reader.ReadMessage(ctx)
	return recordOf(message), err
}

// Member uses ConsumerGroup, since a Reader tells nobody what it owns.
func (client *client) Member(topic, group string) (*harness.Member, error) {
	consumer, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{ID: group, Brokers: client.bootstrap, Topics: []string{topic},
		StartOffset: kafka.FirstOffset, HeartbeatInterval: 500 * time.Millisecond})
	if err != nil {
		return nil, err
	}
	member, ended := &harness.Member{}, make(chan struct{})
	go func() {
		defer close(ended)
		for {
			generation, err := consumer.Next(context.Background())
			if errors.Is(err, kafka.ErrGroupClosed) {
				return
			}
			if err != nil {
				// Next says why a generation could not be joined, and is to be called again.
				continue
			}
			var owned []int32
			for _, partition := range generation.Assignments[topic] {
				owned = append(owned, int32(partition.ID))
				generation.Start(func(ctx context.Context) { client.consume(ctx, topic, partition, generation, member) })
			}
			member.Own(func([]int32) []int32 { return owned })
		}
	}()
	member.Leave = func() error {
		err := consumer.Close()
		<-ended
		return err
	}
	return member, nil
}

// consume reads a partition until its generation ends, and commits every record.
func (client *client) consume(ctx context.Context, topic string, partition kafka.PartitionAssignment, generation *kafka.Generation, member *harness.Member) {
	reader := client.partitionReader(topic, partition.ID)
	defer reader.Close()
	reader.SetOffset(partition.Offset)
	for {
		message, err := reader.ReadMessage(ctx)
		if err != nil {
			return
		}
		member.Add(recordOf(message))
		if err := generation.CommitOffsets(map[string]map[int]int64{topic: {partition.ID: message.Offset + 1}}); err != nil {
			return
		}
	}
}

func (client *client) Take(topic, group string, count int) (records []harness.Record, err error) {
	ctx, cancel := harness.Within()
	defer cancel()
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: client.bootstrap, GroupID: group, Topic: topic, MaxWait: maxWait, StartOffset: kafka.FirstOffset})
	defer reader.Close()
	for len(records) < count {
		message, err := reader.FetchMessage(ctx)
		if err != nil {
			return nil, err
		}
		if err := reader.CommitMessages(ctx, message); err != nil {
			return nil, err
		}
		records = append(records, recordOf(message))
	}
	return records, nil
}

func main() { harness.Run("kafka-go", harness.Version("github.com/segmentio/kafka-go"), connect) }
