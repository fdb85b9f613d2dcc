package dynamodb

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

// Config says which table to use.
type Config struct {
	Table, Region string
	// Endpoint is the URL of another server than Amazon's for the region.
	Endpoint string
	// CreateTable creates the table if it does not exist.
	CreateTable bool
	// AccessKeyID and SecretAccessKey are fixed credentials; without them those of the environment are used.
	AccessKeyID, SecretAccessKey storage.Secret
	// Prefix keeps the carts of several stores in one table apart. It has no slash.
	Prefix string
	// DialTimeout bounds connecting, ReadTimeout and WriteTimeout one attempt of a read or a write after that. 0 leaves
	// it to the context.
	DialTimeout, ReadTimeout, WriteTimeout time.Duration
}

var (
	_ cell.Swapper    = (*driver)(nil)
	_ cell.Recaller   = (*driver)(nil)
	_ cell.Pacer      = (*driver)(nil)
	_ cell.Lister     = (*driver)(nil)
	_ cell.Counter    = (*driver)(nil)
	_ cell.Flusher    = (*driver)(nil)
	_ cell.Walker     = (*driver)(nil)
	_ storage.Beater  = (*driver)(nil)
	_ storage.Advisor = (*driver)(nil)
)

// recentFor is how long an item that was read or written is used for the next change without a read. If the item has
// changed since, the write is paid for in vain, and a write costs five times what a read does. So the item must very
// likely be unchanged, as it is while a sidecar makes one change after the other under a lock.
const recentFor = 50 * time.Millisecond

// driver is a [cell.Swapper] over one table.
type driver struct {
	client            *dynamodb.Client
	table             string
	space             space
	createTable       bool
	dial, read, write time.Duration

	accessKeyID, secretAccessKey storage.Secret // which errors must not show

	*cell.Recent
	checked storage.Once

	open  context.Context // until Close
	close context.CancelCauseFunc
}

// New makes a store. It asks the server for nothing: the table is checked by the first call that needs it, such as
// Ping.
func New(ctx context.Context, c Config) (*cell.Store, error) {
	d, err := newDriver(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open table %s: %w", c.Table, err)
	}
	return cell.New(cell.Swapping(d)), nil
}

func newDriver(ctx context.Context, c Config, options ...func(*dynamodb.Options)) (*driver, error) {
	client, err := newClient(ctx, c, options...)
	if err != nil {
		return nil, err
	}
	d := &driver{
		client: client, table: c.Table, space: spaceOf(c.Prefix), createTable: c.CreateTable,
		dial: c.DialTimeout, read: c.ReadTimeout, write: c.WriteTimeout,
		Recent:      cell.NewRecent(recentFor),
		accessKeyID: c.AccessKeyID, secretAccessKey: c.SecretAccessKey,
	}
	d.open, d.close = context.WithCancelCause(context.WithoutCancel(ctx))
	return d, nil
}

// Get implements [cell.Swapper]. An expired item does not count, however long DynamoDB keeps it.
func (d *driver) Get(ctx context.Context, key cart.Key) ([]byte, uint64, error) {
	it, err := d.fetch(ctx, key)
	if err != nil {
		return nil, 0, err
	}
	if it == nil || it.over(time.Now()) {
		it = new(item)
	}
	d.Read(key, it.state, it.revision)
	return it.state, it.revision, nil
}

// fetch reads an item, nil if there is none. It sees all earlier writes.
func (d *driver) fetch(ctx context.Context, key cart.Key) (*item, error) {
	var found attributes
	err := d.reading(ctx, func(ctx context.Context) error {
		out, err := d.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &d.table, Key: d.space.key(key), ConsistentRead: aws.Bool(true)})
		if err == nil {
			found = out.Item
		}
		return err
	})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	it, err := d.space.decode(found)
	if err != nil {
		return nil, err
	}
	return &it, nil
}

// Swap implements [cell.Swapper].
func (d *driver) Swap(ctx context.Context, key cart.Key, revision uint64, value []byte, ends time.Time) (swapped bool, err error) {
	var next uint64
	defer func() {
		if swapped {
			d.Stored(key, value, next)
		} else {
			d.Drop(key)
		}
	}()
	if value == nil {
		return d.writing(ctx, key, revision, 0, func(ctx context.Context) error {
			condition, names, values := unchanged(revision, time.Now())
			_, err := d.client.DeleteItem(ctx, &dynamodb.DeleteItemInput{
				TableName: &d.table, Key: d.space.key(key),
				ConditionExpression: &condition, ExpressionAttributeNames: names, ExpressionAttributeValues: values,
			})
			return err
		})
	}
	next = newRevision()
	stored, err := d.space.encode(key, value, next, ends)
	if err != nil {
		return false, err
	}
	return d.writing(ctx, key, revision, next, func(ctx context.Context) error {
		condition, names, values := unchanged(revision, time.Now())
		_, err := d.client.PutItem(ctx, &dynamodb.PutItemInput{
			TableName: &d.table, Item: stored,
			ConditionExpression: &condition, ExpressionAttributeNames: names, ExpressionAttributeValues: values,
		})
		return err
	})
}

// unchanged is the condition that the item is still the one that was seen, and nothing more. The seen item may have
// expired since. If none was seen, there may be an expired one.
func unchanged(revision uint64, now time.Time) (condition string, names map[string]string, values attributes) {
	names = map[string]string{"#revision": attrRevision, "#expires": attrExpires}
	values = attributes{":now": number(now.Unix())}
	if revision == 0 {
		return "attribute_not_exists(#revision) OR #expires <= :now", names, values
	}
	values[":seen"] = number(revision)
	return "#revision = :seen AND (attribute_not_exists(#expires) OR #expires > :now)", names, values
}

// Beat implements [storage.Beater]. It reads an item that is not there, for half a read unit. A read is enough: if
// DynamoDB answers reads, it refuses writes only for want of the right, and Ping notices that.
func (d *driver) Beat(ctx context.Context) error {
	return d.reading(ctx, func(ctx context.Context) error {
		_, err := d.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &d.table, Key: d.space.key(cart.Key{Instance: "beat"})})
		return err
	})
}

// Pauses implements [cell.Pacer]. A look takes some milliseconds by itself, and costs money: a waiter that waits 5 s
// for a lock that is not given back pays for a hundred looks at most.
func (d *driver) Pauses() (shortest, longest time.Duration) {
	return 2 * time.Millisecond, 50 * time.Millisecond
}

// Capabilities implements [cell.Swapper].
func (d *driver) Capabilities() storage.Capabilities {
	return storage.Capabilities{Backend: "DynamoDB", Shared: true, Durable: true}
}

// Close implements [cell.Swapper].
func (d *driver) Close() error {
	d.close(storage.ErrClosed)
	return nil
}
