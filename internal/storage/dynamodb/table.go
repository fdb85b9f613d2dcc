package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/sidecart/sidecart/internal/storage"
)

// What the key of a table must be, in words.
const wantedKey = "partition key " + attrIdentifier + " and sort key " + attrInstance + ", both of type S"

// ready checks the table before the first call, and after one that did not find it.
func (d *driver) ready(ctx context.Context) error {
	err := d.checked.Do(ctx, d.check)
	if err != nil && errors.Is(err, ctx.Err()) && !errors.Is(err, storage.ErrUnavailable) { // while it waited for the check of another
		err = ended(ctx, nil)
	}
	return err
}

// check makes sure that the table exists, has the right key and can be used. It creates the table if that is wanted.
func (d *driver) check(ctx context.Context) error {
	for {
		t, err := d.describe(ctx)
		if code(err) == codeTableMissing && d.createTable {
			if err := d.create(ctx); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return d.translate(err)
		}
		switch t.TableStatus {
		case types.TableStatusActive, types.TableStatusUpdating:
			if err := d.fits(t); err != nil {
				return err
			}
			if d.createTable {
				d.enableTimeToLive(ctx)
			}
			return nil
		case types.TableStatusCreating:
			if err := d.pause(ctx, "it is being made"); err != nil {
				return err
			}
		default:
			return unavailable(fmt.Sprintf("table %s cannot be used: its status is %s", d.table, t.TableStatus))
		}
	}
}

// pause waits until the table may have changed its status. A second is little compared with the time that it takes to
// create a table; a server of tests is quicker.
func (d *driver) pause(ctx context.Context, why string) error {
	ctx, cancel := d.untilClosed(ctx)
	defer cancel()
	timer := time.NewTimer(100*time.Millisecond + rand.N(200*time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ended(ctx, &storage.Refusal{Words: fmt.Sprintf("table %s: %s", d.table, why)})
	}
}

func (d *driver) describe(ctx context.Context) (t *types.TableDescription, err error) {
	err = d.do(ctx, &call{timeout: d.read, run: func(ctx context.Context) error {
		out, err := d.client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &d.table})
		if err == nil {
			t = out.Table
		}
		return err
	}})
	return t, err
}

// fits says what is wrong with the key of the table.
func (d *driver) fits(t *types.TableDescription) error {
	kinds := map[string]types.ScalarAttributeType{}
	for _, a := range t.AttributeDefinitions {
		kinds[aws.ToString(a.AttributeName)] = a.AttributeType
	}
	want := map[types.KeyType]string{types.KeyTypeHash: attrIdentifier, types.KeyTypeRange: attrInstance}
	right := len(t.KeySchema) == len(want)
	var is string
	for i, k := range t.KeySchema {
		name := aws.ToString(k.AttributeName)
		right = right && want[k.KeyType] == name && kinds[name] == types.ScalarAttributeTypeS
		if i > 0 {
			is += " and "
		}
		is += map[types.KeyType]string{types.KeyTypeHash: "partition key ", types.KeyTypeRange: "sort key "}[k.KeyType] + name + " of type " + string(kinds[name])
	}
	if right {
		return nil
	}
	return unavailable(fmt.Sprintf("table %s has %s: it needs %s; name a table of its own for Sidecart", d.table, is, wantedKey))
}

func (d *driver) missingTable() error {
	words := fmt.Sprintf("table %s is not there: make it with %s", d.table, wantedKey)
	if !d.createTable {
		words += ", or set createTable"
	}
	return unavailable(words)
}

// create makes the table. Several sidecars may do so at once: the first one does.
func (d *driver) create(ctx context.Context) error {
	err := d.do(ctx, &call{timeout: d.write, run: func(ctx context.Context) error {
		_, err := d.client.CreateTable(ctx, &dynamodb.CreateTableInput{
			TableName:   &d.table,
			BillingMode: types.BillingModePayPerRequest,
			KeySchema: []types.KeySchemaElement{
				{AttributeName: aws.String(attrIdentifier), KeyType: types.KeyTypeHash},
				{AttributeName: aws.String(attrInstance), KeyType: types.KeyTypeRange},
			},
			AttributeDefinitions: []types.AttributeDefinition{
				{AttributeName: aws.String(attrIdentifier), AttributeType: types.ScalarAttributeTypeS},
				{AttributeName: aws.String(attrInstance), AttributeType: types.ScalarAttributeTypeS},
			},
		})
		return err
	}})
	if code(err) == codeTableBusy {
		return nil
	}
	return d.translate(err)
}

// enableTimeToLive makes the table delete expired items. That only saves room. If it cannot be enabled, carts are
// served all the same, and Advice reports it.
func (d *driver) enableTimeToLive(ctx context.Context) {
	if on, err := d.timeToLive(ctx); on || err != nil {
		return
	}
	_ = d.do(ctx, &call{timeout: d.write, run: func(ctx context.Context) error {
		_, err := d.client.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{
			TableName: &d.table, TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String(attrExpires), Enabled: aws.Bool(true)},
		})
		return err
	}})
}

// timeToLive reports whether expired items are deleted, or will be soon.
func (d *driver) timeToLive(ctx context.Context) (on bool, err error) {
	err = d.do(ctx, &call{timeout: d.read, run: func(ctx context.Context) error {
		out, err := d.client.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &d.table})
		if err != nil || out.TimeToLiveDescription == nil {
			return err
		}
		t := out.TimeToLiveDescription
		on = aws.ToString(t.AttributeName) == attrExpires &&
			(t.TimeToLiveStatus == types.TimeToLiveStatusEnabled || t.TimeToLiveStatus == types.TimeToLiveStatusEnabling)
		return nil
	}})
	return on, err
}

// Advice implements [storage.Advisor].
func (d *driver) Advice(ctx context.Context) ([]storage.Advice, error) {
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	on, err := d.timeToLive(ctx)
	switch {
	case code(err) == codeUnknownOperation: // a server that knows no time to live
	case code(err) != "" && kindOf(err) == refused:
		return nil, nil // a missing right to ask is no danger to a cart
	case err != nil:
		return nil, d.translate(err)
	case on:
		return nil, nil
	}
	return []storage.Advice{{
		Code: storage.AdviceExpiredStay,
		Message: fmt.Sprintf("The table %s does not delete expired carts: they are not served any more, and cost what their storage costs. "+
			"Enable its time to live on the attribute %s.", d.table, attrExpires),
	}}, nil
}
