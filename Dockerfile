# The images of `make images`, for those who build with Docker. Files and settings are the same; the program does not know
# its commit, since .git stays outside.
#
#   docker build --target sidecar --tag sidecart/sidecar:dev --build-arg VERSION=$(git describe --tags --always) \
#     --build-arg GO_DIGEST=$(docker buildx imagetools inspect golang:1.26 --format '{{.Manifest.Digest}}') .
#
# Targets: sidecar, operator, shop. What is built is made from scratch; the one image that is used is that of Go, which compiles it.
# It is named by its digest alone, which is yours to choose and to keep: a tag can be moved by others.

ARG GO_DIGEST
FROM --platform=$BUILDPLATFORM golang@${GO_DIGEST} AS build
ARG VERSION=dev
ARG TARGETARCH
WORKDIR /src
COPY . .

FROM build AS build-sidecar
RUN go -C tools/images run . --root /src --rootfs /rootfs --version "$VERSION" --platform "linux/${TARGETARCH:-amd64}" sidecar

FROM build AS build-operator
RUN go -C tools/images run . --root /src --rootfs /rootfs --version "$VERSION" --platform "linux/${TARGETARCH:-amd64}" operator

FROM build AS build-shop
RUN go -C tools/images run . --root /src --rootfs /rootfs --version "$VERSION" --platform "linux/${TARGETARCH:-amd64}" shop

FROM scratch AS shop
COPY --from=build-shop /rootfs /
ENV PATH=/usr/local/bin
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/shop"]

FROM scratch AS operator
COPY --from=build-operator /rootfs /
ENV PATH=/usr/local/bin
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/operator"]

FROM scratch AS sidecar
COPY --from=build-sidecar /rootfs /
ENV PATH=/usr/local/bin
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/sidecar"]
