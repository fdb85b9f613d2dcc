package proxy

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sidecart/sidecart/internal/cart"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

func cartAnswer(key cart.Key, c *cart.Cart) *pb.Cart {
	return &pb.Cart{
		Identifier: key.Identifier,
		Instance:   key.Instance,
		Id:         c.ID,
		Version:    c.Version,
		Etag:       c.ETag(),
		Items:      c.Items.Object.Bytes(),
		Conditions: c.Conditions.Object.Bytes(),
		Metadata:   c.MetadataObject(),
		CreatedAt:  timeAnswer(c.CreatedAt),
		UpdatedAt:  timeAnswer(c.UpdatedAt),
		ExpiresAt:  timeAnswer(c.ExpiresAt),
	}
}

func timeAnswer(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func itemsAnswer(_ cart.Key, c *cart.Cart) *pb.ItemsDocument {
	return &pb.ItemsDocument{
		Items:   c.Items.Object.Bytes(),
		Version: c.PartVersion(cart.PartItems),
		Etag:    c.PartETag(cart.PartItems),
	}
}

func conditionsAnswer(_ cart.Key, c *cart.Cart) *pb.ConditionsDocument {
	return &pb.ConditionsDocument{
		Conditions: c.Conditions.Object.Bytes(),
		Version:    c.PartVersion(cart.PartConditions),
		Etag:       c.PartETag(cart.PartConditions),
	}
}

func metadataAnswer(_ cart.Key, c *cart.Cart) *pb.MetadataDocument {
	return &pb.MetadataDocument{
		Metadata: c.MetadataObject(),
		Version:  c.MetadataVersion(),
		Etag:     c.MetadataETag(),
	}
}

func valueAnswer(name string) func(cart.Key, *cart.Cart) *pb.MetadataValue {
	return func(_ cart.Key, c *cart.Cart) *pb.MetadataValue {
		value, version := c.MetadataValue(name)
		if value == nil {
			value = []byte("null")
		}
		return &pb.MetadataValue{Key: name, Value: value, Version: version, Etag: c.PartETag(cart.PartMetadata(name))}
	}
}
