//go:build !long

package stories

import "time"

// outage is how long TestOutage takes the API server away; with the build tag long it is longer.
const outage = 20 * time.Second
