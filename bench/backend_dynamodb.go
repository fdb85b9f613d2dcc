package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/testserver"
)

var dynamodbBackend = &backend{
	product: config.Product{Type: config.BackendDynamoDB},
	start: func(tb testserver.TB) server {
		// The server takes any credentials, and the sidecars need some.
		for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": plainCredentials, "AWS_SECRET_ACCESS_KEY": plainCredentials} {
			if err := os.Setenv(name, value); err != nil {
				tb.Fatalf("%v", err)
			}
		}
		d := testserver.StartDynalite(tb)
		return server{place: d.Endpoint, pause: d.Pause, resume: d.Resume}
	},
	flags: func(place, _ string) []string {
		return []string{"--backend", "dynamodb", "--dynamodb-table", "carts", "--dynamodb-region", dynamodbRegion, "--dynamodb-endpoint", place, "--dynamodb-create-table"}
	},
	plain: "conditional put", prepare: prepareDynamoDB, connect: connectDynamoDB, hot: 1.5,
}

const (
	plainCredentials = "bench"
	plainTable       = "plain"
	dynamodbRegion   = "local"
)

// dynamodbClient is an application that keeps its carts in DynamoDB by itself: an item has a version, and is stored
// only if that is still the one that was read.
type dynamodbClient struct{ *dynamodb.Client }

func newDynamoDB(place string) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{
		Region: dynamodbRegion, BaseEndpoint: &place,
		Credentials: credentials.NewStaticCredentialsProvider(plainCredentials, plainCredentials, ""),
		HTTPClient:  &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 10}},
	})
}

func prepareDynamoDB(ctx context.Context, place string) error {
	_, err := newDynamoDB(place).CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: aws.String(plainTable), BillingMode: types.BillingModePayPerRequest,
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("id"), KeyType: types.KeyTypeHash}},
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("id"), AttributeType: types.ScalarAttributeTypeS}},
	})
	return err
}

func connectDynamoDB(place string) (client, error) { return dynamodbClient{newDynamoDB(place)}, nil }

// get returns the document of a cart and its version; nil and 0 if there is none.
func (c dynamodbClient) get(ctx context.Context, key string) ([]byte, int64, error) {
	out, err := c.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: aws.String(plainTable), ConsistentRead: aws.Bool(true),
		Key: map[string]types.AttributeValue{"id": &types.AttributeValueMemberS{Value: key}},
	})
	if err != nil || len(out.Item) == 0 {
		return nil, 0, err
	}
	document, ok := out.Item["items"].(*types.AttributeValueMemberB)
	version, ok2 := out.Item["version"].(*types.AttributeValueMemberN)
	if !ok || !ok2 {
		return nil, 0, errors.New("the item is no cart")
	}
	n, err := strconv.ParseInt(version.Value, 10, 64)
	return document.Value, n, err
}

func (c dynamodbClient) AddItem(ctx context.Context, key, id string) error {
	return optimistic(ctx, func() (bool, error) {
		raw, version, err := c.get(ctx, key)
		if err != nil {
			return false, err
		}
		if raw, err = withItem(raw, id); err != nil {
			return false, err
		}
		_, err = c.PutItem(ctx, &dynamodb.PutItemInput{
			TableName: aws.String(plainTable),
			Item: map[string]types.AttributeValue{
				"id": &types.AttributeValueMemberS{Value: key}, "items": &types.AttributeValueMemberB{Value: raw},
				"version": &types.AttributeValueMemberN{Value: strconv.FormatInt(version+1, 10)},
			},
			ConditionExpression:      aws.String("attribute_not_exists(#version) OR #version = :seen"),
			ExpressionAttributeNames: map[string]string{"#version": "version"},
			ExpressionAttributeValues: map[string]types.AttributeValue{
				":seen": &types.AttributeValueMemberN{Value: strconv.FormatInt(version, 10)},
			},
		})
		if _, ok := errors.AsType[*types.ConditionalCheckFailedException](err); ok {
			return false, nil
		}
		return err == nil, err
	})
}

func (c dynamodbClient) Quantity(ctx context.Context, key string) (int64, error) {
	raw, _, err := c.get(ctx, key)
	if err != nil {
		return 0, err
	}
	return quantityIn(raw)
}

func (dynamodbClient) Close() error { return nil }
