//go:build !long

package moving_test

// movedPairs are those between which carts move: each backend is left once and reached once.
func movedPairs() []string {
	return []string{
		"redis to postgres", "postgres to dynamodb", "dynamodb to mariadb", "mariadb to sqlite", "sqlite to redis",
	}
}
