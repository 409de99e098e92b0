"""What can be right or wrong without measuring anything."""

import os
import sys
import tempfile
import unittest
import xml.dom.minidom

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from measuring import chart, figures, layers, packages, processes, registry, report
from measuring.measure import Sample
from measuring.oci import Oci


def samples(*walls):
    return [Sample(wall=wall, cpu=1.0, peak=50_000_000) for wall in walls]


class Figures(unittest.TestCase):
    def test_medians_and_targets(self):
        one = figures.Comparison("cold", {"ours": samples(1, 9, 2), "theirs": samples(8, 9, 8)})
        self.assertEqual(figures.median(one.samples["ours"]), 2)
        self.assertIsNone(figures.median(one.samples["ours"], "wire"))
        self.assertTrue(figures.faster(one, "ours", "theirs", 4).met)
        self.assertFalse(figures.at_most(one, "ours", "theirs", 0.2).met)
        self.assertIn("MISSED cold: ours / theirs: 0.25", figures.at_most(one, "ours", "theirs", 0.2).line())

    def test_results_survive_json(self):
        one = figures.Comparison("cold", {"ours": samples(1, 2)})
        result = figures.Result([one], [figures.memory(one, "ours")], [figures.curve("c", "files", [one], [10], ["ours"])])
        self.assertEqual(figures.Result.from_data(result.as_data()), result)


class Tables(unittest.TestCase):
    def test_the_first_row_is_what_others_are_held_against(self):
        shown = report.table(figures.Comparison("cold", {"ours": samples(1, 2, 3), "theirs": samples(8)}))
        self.assertIn("| ours | 2.00 | 1.00–3.00 | 1.00 | 1.00 | 50 |  |  |  |", shown)
        self.assertIn("| theirs | 8.00 | 8.00–8.00 | 4.00 |", shown)

    def test_only_what_is_between_the_marks_is_replaced(self):
        self.assertEqual(report.between("a<b>old<e>z", "new", "<b>", "<e>"), "a<b>\n\nnew\n\n<e>z")
        with self.assertRaises(ValueError):
            report.between("a<b>", "new", "<b>", "<e>")


class Charts(unittest.TestCase):
    def test_bars_and_lines_are_well_formed(self):
        drawn = chart.bars("1 < 2 & \"3\"", [("apt-ostree", 1.5), ("tar", 3.0)], "s")
        boxes = xml.dom.minidom.parseString(drawn).getElementsByTagName("rect")
        widths = [float(box.getAttribute("width")) for box in boxes]
        self.assertAlmostEqual(widths[1], 2 * widths[0])
        drawn = chart.lines("curve", {"apt-ostree": [(10, 0.1), (100, 0.1)], "x": [(10, 1), (100, 9)]}, "files", "s")
        self.assertEqual(len(xml.dom.minidom.parseString(drawn).getElementsByTagName("polyline")), 2)

    def test_scales_end_at_or_above_the_highest_value(self):
        self.assertEqual([chart.nice(value) for value in (5, 6, 0.9, 24, 26)], [1, 2, 0.2, 5, 10])


class Processes(unittest.TestCase):
    def test_a_tree_counts_descendants_only(self):
        with tempfile.TemporaryDirectory() as proc:
            def process(pid, parent, kilobytes):
                os.mkdir(f"{proc}/{pid}")
                with open(f"{proc}/{pid}/stat", "w") as file:
                    file.write(f"{pid} (a ) b) S {parent} 1 1")
                with open(f"{proc}/{pid}/status", "w") as file:
                    file.write(f"Name:\ta\nVmHWM:\t{kilobytes * 2} kB\nVmRSS:\t{kilobytes} kB\n")
            tree = processes.Tree(proc)
            # A grandchild whose number is lower than its parent's, and a stranger.
            process(400_001, os.getpid(), 10)
            process(300_001, 400_001, 20)
            process(500_001, 1, 1000)
            self.assertEqual(tree.sample(), (30 * 1024, 40 * 1024))


class Registry(unittest.TestCase):
    def test_responses_are_read_from_the_log(self):
        log = '127.0.0.1 - - [22/Nov/2026] "GET /v2/bench/blobs/sha256:ab HTTP/1.1" 206 1500 "" "skopeo/1.9.3"\ntime="x"\n'
        self.assertEqual(registry.served(log), [("GET", "/v2/bench/blobs/sha256:ab", 206, 1500)])

    def test_an_image_is_laid_out_with_links(self):
        with tempfile.TemporaryDirectory() as folder:
            oci = Oci(f"{folder}/oci")
            digest, size = oci.add_json("layer")
            oci.add_image("v1", [{"mediaType": layers.LAYER, "digest": digest, "size": size, "diff_id": digest}])
            registry.publish(oci, "v1", f"{folder}/content")
            value = digest.partition(":")[2]
            data = f"{folder}/content/docker/registry/v2/blobs/sha256/{value[:2]}/{value}/data"
            self.assertTrue(os.path.samefile(data, oci.path(digest)))


class Images(unittest.TestCase):
    def test_parents_come_before_what_is_in_them(self):
        self.assertEqual(layers.with_parents(["a/b/c", "a/d"]), ["a", "a/b", "a/b/c", "a/d"])

    def test_layers_hold_everything_once(self):
        found = [(f"f{number}", number * 100) for number in range(1000)]
        dealt = layers.spread(found, 64)
        self.assertEqual(len(dealt), 64)
        self.assertEqual(sum(dealt, []), [path for path, _ in found])

    def test_the_newest_package_is_chosen(self):
        self.assertEqual(packages.newest("gcc-[0-9]+", ["gcc-9", "gcc-12", "gcc-12-base"]), "gcc-12")
        self.assertIsNone(packages.newest("gcc-[0-9]+", ["clang"]))


if __name__ == "__main__":
    unittest.main()
