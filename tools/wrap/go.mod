module github.com/sidecart/sidecart/tools/wrap

go 1.26.0
