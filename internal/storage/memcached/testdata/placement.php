<?php
// Prints testdata/placement.json: where php-memcached puts keys, as it is set up for consistent hashing.
//
//     php placement.php > placement.json     (Debian's php-cli and php-memcached)
//
// Each row is a list of servers and, for the keys cart.u0.default to cart.u499.default, the index of the key's server in
// that list, as one digit in base 36.
const KEYS = 500;

function rows(): array
{
    $one = ['127.0.0.1:11211'];
    $ports = array_map(fn ($i) => '127.0.0.1:' . (11211 + $i), range(0, 2));
    $default = array_map(fn ($i) => "memcached-$i:11211", range(0, 2));
    $kubernetes = array_map(fn ($i) => "memcached-$i.memcached.shop.svc.cluster.local:11211", range(0, 4));
    $addresses = ['10.0.0.9:11211', '10.0.0.10:11212', '10.0.0.11:11211', '[fd00::1]:11211', '[fd00::2]:11311'];
    $lists = [$one, $ports, array_reverse($ports), $default, $kubernetes, $addresses];
    foreach ([...range(2, 16), 25] as $n) { // at 25 the arithmetic rounds otherwise
        $lists[] = array_map(fn ($i) => "m$i:" . (12000 + 7 * $i), range(0, $n - 1));
    }
    return $lists;
}

function placement(array $servers): string
{
    $m = new Memcached();
    $m->setOption(Memcached::OPT_DISTRIBUTION, Memcached::DISTRIBUTION_CONSISTENT);
    $m->setOption(Memcached::OPT_LIBKETAMA_COMPATIBLE, true);
    $index = [];
    foreach ($servers as $i => $server) {
        $colon = strrpos($server, ':');
        $host = trim(substr($server, 0, $colon), '[]');
        $port = (int) substr($server, $colon + 1);
        $m->addServer($host, $port);
        $index["$host $port"] = base_convert((string) $i, 10, 36);
    }
    $all = '';
    for ($k = 0; $k < KEYS; $k++) {
        $at = $m->getServerByKey("cart.u$k.default");
        $all .= $index["{$at['host']} {$at['port']}"];
    }
    return $all;
}

$rows = array_map(fn ($servers) => ['servers' => $servers, 'placement' => placement($servers)], rows());
echo json_encode($rows, JSON_PRETTY_PRINT | JSON_UNESCAPED_SLASHES), "\n";
