//go:build long

package stories

import "time"

// outage is how long TestOutage takes the API server away; without the build tag long it is shorter.
const outage = time.Minute
