// Package charts tests the Helm chart of the operator with the real Helm and a real API server. It has no code of its
// own.
//
// What the chart shares with config/ (the definition of CartStorage, the roles, the policies) and the table of values
// in its README are made by the program in generate.
package charts

//go:generate go run ./generate
