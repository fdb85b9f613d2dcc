//go:build !long

package moving_test

// movedPairs are those between which carts move in tests of faults and of load: a ring, and the way back of one pair.
func movedPairs() []string {
	return []string{
		"redis to postgres", "postgres to dynamodb", "dynamodb to mariadb", "mariadb to sqlite", "sqlite to redis",
		"redis to sqlite",
	}
}
