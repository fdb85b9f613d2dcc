package proxy

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

func (s *service) GetCart(ctx context.Context, r *pb.GetCartRequest) (*pb.Cart, error) {
	return read(ctx, s, r, cart.PartAll, cartAnswer)
}

// maxAnswerBytes bounds a list in an answer, so that it fits the 4 MiB that gRPC clients accept by default.
const maxAnswerBytes = 3 << 20

func (s *service) ListInstances(ctx context.Context, r *pb.ListInstancesRequest) (*pb.Instances, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*pb.Instances, error) {
		if err := cart.ValidateName("identifier", r.Identifier); err != nil {
			return nil, err
		}
		if err := unconditional(ctx); err != nil {
			return nil, err
		}
		names, err := b.Coordinator.Instances(ctx, r.Identifier)
		if err != nil {
			return nil, err
		}
		answer := &pb.Instances{Identifier: r.Identifier, Instances: names}
		if n := proto.Size(answer); n > maxAnswerBytes {
			return nil, cart.TooLargef("instances", maxAnswerBytes, int64(n), "are %d, and their names %d bytes: at most %d can be answered", len(names), n, maxAnswerBytes)
		}
		return answer, nil
	})
}

func (s *service) PutCart(ctx context.Context, r *pb.PutCartRequest) (*pb.Cart, error) {
	return change(ctx, s, r, cart.PartAll, func(l cart.Limits) (cart.Verb, error) {
		var put cart.Put
		if r.Items == nil && r.Conditions == nil {
			return nil, cart.Invalidf("items", "is required, or conditions, or both")
		}
		if r.Items != nil {
			items, err := cart.ParseItems("items", r.Items, l)
			if err != nil {
				return nil, err
			}
			put.Items = &items
		}
		if r.Conditions != nil {
			conditions, err := cart.ParseConditions("conditions", r.Conditions, l)
			if err != nil {
				return nil, err
			}
			put.Conditions = &conditions
		}
		return put, nil
	}, cartAnswer)
}

func (s *service) GetItems(ctx context.Context, r *pb.GetItemsRequest) (*pb.ItemsDocument, error) {
	return read(ctx, s, r, cart.PartItems, itemsAnswer)
}

func (s *service) PutItems(ctx context.Context, r *pb.PutItemsRequest) (*pb.ItemsDocument, error) {
	return change(ctx, s, r, cart.PartItems, func(l cart.Limits) (cart.Verb, error) {
		return putItems("items", r.Items, l)
	}, itemsAnswer)
}

func (s *service) AddItem(ctx context.Context, r *pb.AddItemRequest) (*pb.ItemsDocument, error) {
	return change(ctx, s, r, cart.PartItems, func(l cart.Limits) (cart.Verb, error) {
		return addItem("item", r.Item, l)
	}, itemsAnswer)
}

func (s *service) UpdateItem(ctx context.Context, r *pb.UpdateItemRequest) (*pb.ItemsDocument, error) {
	return change(ctx, s, r, cart.PartItems, func(l cart.Limits) (cart.Verb, error) {
		return updateItem("", "itemId", r.ItemId, r, l)
	}, itemsAnswer)
}

func (s *service) RemoveItem(ctx context.Context, r *pb.RemoveItemRequest) (*pb.ItemsDocument, error) {
	return change(ctx, s, r, cart.PartItems, func(cart.Limits) (cart.Verb, error) {
		return removeItem("itemId", r.ItemId)
	}, itemsAnswer)
}

func (s *service) GetConditions(ctx context.Context, r *pb.GetConditionsRequest) (*pb.ConditionsDocument, error) {
	return read(ctx, s, r, cart.PartConditions, conditionsAnswer)
}

func (s *service) PutConditions(ctx context.Context, r *pb.PutConditionsRequest) (*pb.ConditionsDocument, error) {
	return change(ctx, s, r, cart.PartConditions, func(l cart.Limits) (cart.Verb, error) {
		return putConditions("conditions", r.Conditions, l)
	}, conditionsAnswer)
}

func (s *service) PutCondition(ctx context.Context, r *pb.PutConditionRequest) (*pb.ConditionsDocument, error) {
	return change(ctx, s, r, cart.PartConditions, func(l cart.Limits) (cart.Verb, error) {
		return putCondition("", r.Name, r.Condition, l)
	}, conditionsAnswer)
}

func (s *service) RemoveCondition(ctx context.Context, r *pb.RemoveConditionRequest) (*pb.ConditionsDocument, error) {
	return change(ctx, s, r, cart.PartConditions, func(cart.Limits) (cart.Verb, error) {
		return removeCondition("name", r.Name)
	}, conditionsAnswer)
}

func (s *service) GetMetadata(ctx context.Context, r *pb.GetMetadataRequest) (*pb.MetadataDocument, error) {
	return read(ctx, s, r, cart.PartMetadataAll, metadataAnswer)
}

func (s *service) PatchMetadata(ctx context.Context, r *pb.PatchMetadataRequest) (*pb.MetadataDocument, error) {
	return change(ctx, s, r, cart.PartMetadataAll, func(l cart.Limits) (cart.Verb, error) {
		return patchMetadata("metadata", r.Metadata, l)
	}, metadataAnswer)
}

func (s *service) ClearMetadata(ctx context.Context, r *pb.ClearMetadataRequest) (*pb.MetadataDocument, error) {
	return change(ctx, s, r, cart.PartMetadataAll, func(cart.Limits) (cart.Verb, error) {
		return cart.ClearMetadata{}, nil
	}, metadataAnswer)
}

func (s *service) GetMetadataValue(ctx context.Context, r *pb.GetMetadataValueRequest) (*pb.MetadataValue, error) {
	return read(ctx, s, r, cart.PartMetadata(r.Key), valueAnswer(r.Key))
}

func (s *service) PutMetadataValue(ctx context.Context, r *pb.PutMetadataValueRequest) (*pb.MetadataValue, error) {
	return change(ctx, s, r, cart.PartMetadata(r.Key), func(l cart.Limits) (cart.Verb, error) {
		return putMetadata("", r.Key, r.Value, l)
	}, valueAnswer(r.Key))
}

func (s *service) RemoveMetadataValue(ctx context.Context, r *pb.RemoveMetadataValueRequest) (*pb.MetadataValue, error) {
	return change(ctx, s, r, cart.PartMetadata(r.Key), func(cart.Limits) (cart.Verb, error) {
		return removeMetadata("key", r.Key)
	}, valueAnswer(r.Key))
}

func (s *service) Batch(ctx context.Context, r *pb.BatchRequest) (*pb.Cart, error) {
	return change(ctx, s, r, cart.PartAll, func(l cart.Limits) (cart.Verb, error) {
		return batch("operations", r.Operations, l)
	}, cartAnswer)
}

func (s *service) Clear(ctx context.Context, r *pb.ClearRequest) (*pb.Cart, error) {
	return change(ctx, s, r, cart.PartAll, func(cart.Limits) (cart.Verb, error) {
		return cart.Clear{}, nil
	}, cartAnswer)
}

func (s *service) Forget(ctx context.Context, r *pb.ForgetRequest) (*pb.ForgetResponse, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*pb.ForgetResponse, error) {
		key, ch, err := demand(ctx, r, cart.PartAll)
		if err != nil {
			return nil, err
		}
		res, err := b.Coordinator.Forget(ctx, key, ch)
		if err != nil {
			return nil, err
		}
		return answered(ctx, r, res, &pb.ForgetResponse{Forgotten: res.Changed}), nil
	})
}

func (s *service) ForgetAll(ctx context.Context, r *pb.ForgetAllRequest) (*pb.ForgetAllResponse, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*pb.ForgetAllResponse, error) {
		if err := cart.ValidateName("identifier", r.Identifier); err != nil {
			return nil, err
		}
		if err := unconditional(ctx); err != nil {
			return nil, err
		}
		n, err := b.Coordinator.ForgetAll(ctx, r.Identifier)
		return &pb.ForgetAllResponse{Forgotten: int64(n)}, err
	})
}

func (s *service) Swap(ctx context.Context, r *pb.SwapRequest) (*pb.SwapResponse, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*pb.SwapResponse, error) {
		c, res, err := handOver(ctx, b, r, r.ToIdentifier, cart.StrategySwap)
		if err != nil {
			return nil, err
		}
		return answered(ctx, r, res, &pb.SwapResponse{Swapped: res.Changed, Cart: c}), nil
	})
}

func (s *service) Merge(ctx context.Context, r *pb.MergeRequest) (*pb.MergeResponse, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*pb.MergeResponse, error) {
		strategy, err := cart.ParseStrategy("strategy", r.Strategy)
		if err != nil {
			return nil, err
		}
		c, res, err := handOver(ctx, b, r, r.ToIdentifier, strategy)
		if err != nil {
			return nil, err
		}
		return answered(ctx, r, res, &pb.MergeResponse{Merged: res.Changed, Cart: c, Capped: res.Capped}), nil
	})
}

func handOver(ctx context.Context, b *Backend, r changing, toIdentifier string, strategy cart.Strategy) (*pb.Cart, lock.Result, error) {
	from, ch, err := demand(ctx, r, cart.PartAll)
	if err != nil {
		return nil, lock.Result{}, err
	}
	if err := cart.ValidateName("toIdentifier", toIdentifier); err != nil {
		return nil, lock.Result{}, err
	}
	to := cart.Key{Identifier: toIdentifier, Instance: from.Instance}
	res, err := b.Coordinator.HandOver(ctx, from, to, strategy, ch)
	if err != nil {
		return nil, lock.Result{}, err
	}
	return cartAnswer(to, res.Cart), res, nil
}

func (s *service) Flush(ctx context.Context, _ *pb.FlushRequest) (*pb.FlushResponse, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*pb.FlushResponse, error) {
		if !b.AllowFlush {
			return nil, fmt.Errorf("flush is %w: set allowFlush to permit it", errForbidden)
		}
		if err := unconditional(ctx); err != nil {
			return nil, err
		}
		return &pb.FlushResponse{}, b.Coordinator.Flush(ctx)
	})
}
