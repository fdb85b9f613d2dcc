package config

import (
	"cmp"
	"fmt"
	"strings"
)

// Place says where the carts of the backend are, for people: addresses and names, never a user or a password.
func (b *Backend) Place() string {
	switch {
	case b.Redis != nil:
		place := strings.Join(b.Redis.Addresses, ", ")
		if b.Redis.Database != 0 {
			place += fmt.Sprintf(", database %d", b.Redis.Database)
		}
		if b.Redis.MasterName != "" {
			place += ", master " + b.Redis.MasterName
		}
		return place
	case b.Memcached != nil:
		return strings.Join(b.Memcached.Addresses, ", ")
	case b.DynamoDB != nil:
		return fmt.Sprintf("table %s, %s", b.DynamoDB.TableName, cmp.Or(b.DynamoDB.Endpoint, b.DynamoDB.Region))
	case b.Database != nil && b.Database.URLFile != "":
		return "where " + b.Database.URLFile + " says"
	case b.Database != nil:
		// The part of the URL after the user and before the parameters.
		url, _, _ := strings.Cut(b.Database.URL.String(), "?")
		return url[strings.LastIndexByte(url, '@')+1:]
	case b.File != nil:
		return b.File.Directory
	}
	return "this process"
}
