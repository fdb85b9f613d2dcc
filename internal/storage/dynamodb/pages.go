package dynamodb

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// A page is what DynamoDB reads in one call, at most 1 MiB. It returns only the items that pass the filter, often none,
// and charges for all that it read.

// Instances implements [cell.Lister]: a query of one partition.
func (d *driver) Instances(ctx context.Context, identifier string) (instances []string, err error) {
	in := &dynamodb.QueryInput{
		TableName: &d.table, ConsistentRead: aws.Bool(true),
		KeyConditionExpression:    aws.String("#identifier = :identifier"),
		ExpressionAttributeNames:  map[string]string{"#identifier": attrIdentifier},
		ExpressionAttributeValues: attributes{":identifier": d.space.partition(identifier)},
	}
	err = d.pages(ctx, func(ctx context.Context, start attributes) ([]attributes, attributes, error) {
		in.ExclusiveStartKey = start
		out, err := d.client.Query(ctx, in)
		if err != nil {
			return nil, nil, err
		}
		return out.Items, out.LastEvaluatedKey, nil
	}, func(it *item) (bool, error) {
		there, err := it.holdsCart(time.Now())
		if there {
			instances = append(instances, it.key.Instance)
		}
		return true, err
	})
	return instances, err
}

// Count implements [cell.Counter]: a scan of the whole table, or of as much of it as it takes to find most carts.
func (d *driver) Count(ctx context.Context, most int) (n int, err error) {
	err = d.scan(ctx, func(it *item) (bool, error) {
		there, err := it.holdsCart(time.Now())
		if there && !it.key.Reserved() {
			n++
		}
		return n < most, err
	}, attrState, attrExpires)
	return n, err
}

// Flush implements [cell.Flusher]: a scan of the whole table, and a delete for each item of the prefix. A delete has
// the condition that the item is as it was seen, so that a late one removes no other item. If somebody changes the item
// meanwhile, it is deleted again.
func (d *driver) Flush(ctx context.Context) error {
	return d.scan(ctx, func(it *item) (bool, error) { return true, d.remove(ctx, it) })
}

func (d *driver) remove(ctx context.Context, it *item) error {
	for key := it.key; it != nil; {
		names, values := map[string]string{"#revision": attrRevision}, attributes{":seen": number(it.revision)}
		gone, err := d.writing(ctx, key, it.revision, 0, func(ctx context.Context) error {
			_, err := d.client.DeleteItem(ctx, &dynamodb.DeleteItemInput{
				TableName: &d.table, Key: d.space.key(key),
				ConditionExpression: aws.String("#revision = :seen"), ExpressionAttributeNames: names, ExpressionAttributeValues: values,
			})
			return err
		})
		if gone || err != nil {
			return err
		}
		if it, err = d.fetch(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// scan visits the items of the prefix, with the attributes that are named besides their key and revision.
func (d *driver) scan(ctx context.Context, visit func(*item) (more bool, err error), attrs ...string) error {
	in := d.scanned(attrs...)
	return d.pages(ctx, func(ctx context.Context, start attributes) ([]attributes, attributes, error) {
		in.ExclusiveStartKey = start
		out, err := d.client.Scan(ctx, in)
		if err != nil {
			return nil, nil, err
		}
		return out.Items, out.LastEvaluatedKey, nil
	}, visit)
}

// scanned is what a scan of the prefix asks for.
func (d *driver) scanned(attrs ...string) *dynamodb.ScanInput {
	in := &dynamodb.ScanInput{
		TableName: &d.table, ConsistentRead: aws.Bool(true),
		FilterExpression:          aws.String("begins_with(#identifier, :space)"),
		ProjectionExpression:      aws.String("#identifier, #instance, #revision"),
		ExpressionAttributeNames:  map[string]string{"#identifier": attrIdentifier, "#instance": attrInstance, "#revision": attrRevision},
		ExpressionAttributeValues: attributes{":space": d.space.partition("")},
	}
	for _, a := range attrs {
		*in.ProjectionExpression += ", #" + a
		in.ExpressionAttributeNames["#"+a] = a
	}
	return in
}

// Page implements [cell.Walker]: one page of a scan. The next page may begin at an item of another prefix.
func (d *driver) Page(ctx context.Context, after string, limit int) (keys []cart.Key, next string, err error) {
	in := d.scanned()
	in.Limit = aws.Int32(int32(min(limit, 1000)))
	if partition, instance, ok := strings.Cut(after, "\x00"); ok { // names hold no NUL
		in.ExclusiveStartKey = attributes{
			attrIdentifier: &types.AttributeValueMemberS{Value: partition}, attrInstance: &types.AttributeValueMemberS{Value: instance},
		}
	}
	err = d.reading(ctx, func(ctx context.Context) error {
		keys, next = nil, ""
		out, err := d.client.Scan(ctx, in)
		if err != nil {
			return err
		}
		for _, a := range out.Items {
			it, err := d.space.decode(a)
			if err != nil {
				return err
			}
			keys = append(keys, it.key)
		}
		if last := out.LastEvaluatedKey; len(last) > 0 {
			partition, _ := last[attrIdentifier].(*types.AttributeValueMemberS)
			instance, _ := last[attrInstance].(*types.AttributeValueMemberS)
			if partition == nil || instance == nil {
				return fmt.Errorf("%w: a page ends with a key that is none of the table", storage.ErrCorrupt)
			}
			next = partition.Value + "\x00" + instance.Value
		}
		return nil
	})
	return keys, next, err
}

// pages visits the items of one page after the other, until visit wants no more.
func (d *driver) pages(ctx context.Context, page func(ctx context.Context, start attributes) (items []attributes, next attributes, err error),
	visit func(*item) (more bool, err error)) error {
	var start attributes
	for {
		var items []attributes
		var next attributes
		err := d.reading(ctx, func(ctx context.Context) (err error) {
			items, next, err = page(ctx, start)
			return err
		})
		if err != nil {
			return err
		}
		for _, a := range items {
			it, err := d.space.decode(a)
			if err != nil {
				return err
			}
			if more, err := visit(&it); err != nil || !more {
				return err
			}
		}
		if start = next; len(start) == 0 {
			return nil
		}
	}
}
