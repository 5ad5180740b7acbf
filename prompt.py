"""The words of the method: what CLIP is told a normal and an abnormal image look like. Edit the lists below.

Three places to edit, from top to bottom:
  CLASS_NAMES, NORMAL_STATES, ABNORMAL_STATES, TEMPLATES   the base ensemble: every state in every template
  VOICES, POSITIONS                                        phrasings and adjectives that P-Prompts share
  P_PROMPTS                                                the P-Prompts: one block of lists an object
An edit in an object's block changes that object's next run and nothing else. `python prompt.py show Brain`
prints what comes out, `check` looks for slips, `rank` says which sentences help, `generate` asks a language model
for others. To leave this file alone, give `--prompts FILE.json`.

The file is long because it is data: everything above the line "Builder" is words.
"""

import hashlib
import json
import re
import runpy
from pathlib import Path

from runtime.errors import InputError
from runtime.files import atomic_write

# The lists stay as they are packed, hence:
# fmt: off
# ---------------------------------------------------------------------------------------------- Base ensemble

# Words for an object in the templates. One not listed goes by its name: "mvtec/metal_nut" is "metal nut".
CLASS_NAMES = {
    "Brain": "Brain",
    "Liver": "Liver",
    "Retina_RESC": "retinal OCT",
    "Retina_OCT2017": "retinal OCT",
    "Chest": "Chest X-ray film",
    "Histopathology": "histopathological image",
    "Skin_HAM10000": "skin lesion",
    "Skin_ISIC2019": "skin lesion",
    "Solar": "solar cell",
    "mpdd/bracket_black": "black metal bracket",
    "mpdd/bracket_brown": "brown metal bracket",
    "mpdd/bracket_white": "white metal bracket",
    "mpdd/connector": "metal connector",
    "mpdd/tubes": "metal tube",
    "btad/01": "industrial product",
    "btad/02": "industrial product",
    "btad/03": "industrial product",
    "visa/chewinggum": "chewing gum",
    "visa/macaroni1": "macaroni",
    "visa/macaroni2": "macaroni",
    "visa/pcb1": "pcb",
    "visa/pcb2": "pcb",
    "visa/pcb3": "pcb",
    "visa/pcb4": "pcb",
}

NORMAL_STATES = [
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
]

ABNORMAL_STATES = [
    "damaged {}",
    "broken {}",
    "{} with flaw",
    "{} with defect",
    "{} with damage",
]

TEMPLATES = [
    "a bad photo of a {}.",
    "a low resolution photo of the {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a bright photo of a {}.",
    "a dark photo of the {}.",
    "a photo of my {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a photo of one {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "a low resolution photo of a {}.",
    "a photo of a large {}.",
    "a blurry photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a photo of the small {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "a dark photo of a {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
]

# ------------------------------------------------------------------------------ P-Prompts: what objects share

# How a sentence is put, by who speaks. {view}, {sign}, {finding} and {place} come from the object's block.
VOICES = {
    "report": {  # a radiologist or a pathologist
        "normal": [
            "a normal {view} with {sign}.",
            "a {view} showing {sign}.",
            "an unremarkable {view}: {sign}.",
            "a {view} from a healthy person, with {sign}.",
            "{sign}, as expected on a normal {view}.",
        ],
        "abnormal": [
            "an abnormal {view} with {finding} {place}.",
            "a {view} showing {finding} {place}.",
            "a pathological {view}: {finding} {place}.",
            "a {view} from a patient with {finding} {place}.",
            "{finding} {place}, seen on a {view}.",
        ],
        "severity": ["small", "medium-sized", "large", "faint", "clearly visible"],
    },
    "dermoscopy": {  # a dermatologist: melanoma against naevus
        "normal": [
            "a {view} of a benign naevus with {sign}.",
            "a {view} of a common mole showing {sign}.",
            "a reassuring {view} with {sign}, typical of a naevus.",
            "a {view} of a harmless melanocytic naevus: {sign}.",
        ],
        "abnormal": [
            "a {view} of a melanoma with {finding} {place}.",
            "a {view} of a malignant skin lesion showing {finding} {place}.",
            "a {view} suspicious for melanoma: {finding} {place}.",
            "{finding} {place}, seen in a {view} of a melanoma.",
        ],
        "severity": ["subtle", "marked", "focal", "striking"],
    },
    "inspection": {  # a line inspector; the voice of a block that names none
        "normal": [
            "a photo of a {view} with {sign}.",
            "a good {view}: {sign}.",
            "a {view} that passes inspection, with {sign}.",
            "a flawless {view} with {sign}.",
        ],
        "abnormal": [
            "a photo of a {view} with {finding} {place}.",
            "a defective {view}: {finding} {place}.",
            "a {view} that fails inspection because of {finding} {place}.",
            "a damaged {view} with {finding} {place}.",
        ],
        "severity": ["tiny", "small", "large", "clearly visible", "barely visible"],
    },
    "plain": {  # anyone: objects without a block
        "normal": [
            "a normal {view} with {sign}.",
            "a {view} showing {sign}.",
            "an unremarkable {view}: {sign}.",
        ],
        "abnormal": [
            "an abnormal {view} with {finding} {place}.",
            "a {view} showing {finding} {place}.",
            "a {view} with something wrong: {finding} {place}.",
        ],
        "severity": ["small", "large", "faint", "clearly visible"],
    },
}

# Where a defect lies in the picture; blocks add them to places of their own.
POSITIONS = [
    "in the upper left", "in the upper right", "in the lower left", "in the lower right", "in the centre",
    "near the edge",
]

# ----------------------------------------------------------------------------- P-Prompts: one block an object
#
#   voice     who speaks, a key of VOICES; left out: "inspection"
#   views     what the picture shows; a thing in the singular, without "a"
#   normal    what one sees where nothing is wrong; each is said of each view
#   findings  what is wrong; {} takes an adjective of severity or size; each is said at each place
#   places    where it is
#   overall   what is wrong as a whole, or tells its place itself; each is said of each view; may be left out
#   severity  adjectives instead of the voice's own; may be left out
#
# "a" becomes "an" by itself. Predictions, adjectives and phrasings take turns: each finding is put in many ways.

P_PROMPTS = {
    # ------------------------------------------------------------------------------------------------ medical
    "Brain": {
        "voice":    "report",
        "views":    ["axial brain MRI slice", "FLAIR image of the brain", "transverse MR image of the head",
                     "brain magnetic resonance slice"],
        "normal":   ["symmetric hemispheres", "lateral ventricles of normal size and shape",
                     "clear sulci and gyri", "sharp grey-white matter differentiation",
                     "a straight midline falx", "homogeneous white matter", "an evenly folded cortex",
                     "symmetric basal ganglia", "clear cerebrospinal fluid spaces",
                     "uniform signal in the brain parenchyma", "a thin cortex of regular width",
                     "healthy thalami on both sides"],
        "findings": ["a {} ring-enhancing mass", "a {} necrotic mass", "a {} heterogeneous glioma",
                     "a {} metastasis", "a {} area of oedema", "a {} hyperintense lesion",
                     "a {} infiltrating, swollen tumour", "a {} dark-cored lesion", "a {} cystic tumour",
                     "a {} focus of haemorrhage"],
        "places":   ["in the left frontal lobe", "in the right frontal lobe", "in the left temporal lobe",
                     "in the right temporal lobe", "in the left parietal lobe", "in the right parietal lobe",
                     "in the right occipital lobe", "in the deep white matter",
                     "beside the lateral ventricle", "near the midline"],
        "overall":  ["a midline shift from mass effect", "a compressed lateral ventricle",
                     "effaced sulci over one hemisphere", "asymmetric hemispheres distorted by a tumour",
                     "several nodules scattered over both hemispheres"],
    },
    "Liver": {
        "voice":    "report",
        "views":    ["axial CT slice of the liver", "contrast-enhanced abdominal CT of the liver",
                     "portal venous phase CT image of the liver", "computed tomography slice of the liver"],
        "normal":   ["homogeneous liver parenchyma", "smooth liver contours",
                     "evenly enhanced hepatic tissue", "clearly drawn portal and hepatic veins",
                     "left and right lobes of normal size", "uniform attenuation throughout the liver",
                     "a sharp, regular liver margin", "regular branching of the hepatic vessels",
                     "bile ducts of normal width", "a clean fissure between the lobes",
                     "intact parenchyma from the dome to the lower tip"],
        "findings": ["a {} hypodense lesion", "a {} cyst", "a {} hyperdense lesion",
                     "a {} rim-enhancing lesion", "a {} hypoattenuating metastasis",
                     "a {} hepatocellular carcinoma", "a {} necrotic mass", "a {} low-density nodule",
                     "a {} hypervascular tumour", "a {} ill-defined dark area"],
        "places":   ["in the left lobe", "in the right lobe", "in the caudate lobe",
                     "under the liver capsule", "near the portal vein", "beside the gallbladder fossa",
                     "at the hepatic dome", "close to the hepatic veins", "in the centre of the liver"],
        "overall":  ["multiple metastases in both lobes",
                     "several hypodense nodules scattered through the liver",
                     "a liver contour bulging over a mass", "hepatic vessels displaced by a tumour",
                     "patchy, heterogeneous liver parenchyma"],
    },
    "Retina_RESC": {
        "voice":    "report",
        "views":    ["macular OCT B-scan", "optical coherence tomography image of the retina",
                     "cross-sectional OCT scan of the macula", "retinal OCT line scan"],
        "normal":   ["a smooth foveal depression", "evenly layered retinal tissue",
                     "a continuous retinal pigment epithelium",
                     "a retina lying flat on the pigment epithelium", "an intact ellipsoid zone",
                     "a sharp external limiting membrane", "regular retinal thickness",
                     "clear, parallel retinal layers", "a bright, unbroken photoreceptor band",
                     "a smooth inner surface under a dark vitreous",
                     "a well-formed choroid beneath the retina"],
        "findings": ["a {} pocket of subretinal fluid", "a {} intraretinal cyst",
                     "a {} pigment epithelial detachment", "a {} serous detachment of the retina",
                     "a {} cluster of cystoid spaces", "a {} dark fluid-filled cavity",
                     "a {} dome-shaped elevation of the retina", "a {} area of retinal oedema",
                     "a {} hyporeflective space between the layers"],
        "places":   ["at the fovea", "left of the fovea", "right of the fovea", "nasal to the fovea",
                     "temporal to the fovea", "in the parafoveal region", "in the central macula",
                     "at the margin of the macula", "next to the foveal pit"],
        "overall":  ["macular oedema and a swollen retina", "a lost foveal depression",
                     "a thickened retina and widened layers",
                     "retinal layers lifted off the pigment epithelium",
                     "diffuse swelling that blurs the retinal layers"],
    },
    "Retina_OCT2017": {
        "voice":    "report",
        "views":    ["retinal OCT B-scan", "spectral-domain OCT image of the macula", "foveal OCT scan",
                     "optical coherence tomography slice of the retina"],
        "normal":   ["a preserved foveal contour", "a gently sloping foveal pit",
                     "straight, evenly spaced retinal layers", "a smooth and even pigment epithelium",
                     "a thin, regular Bruch's membrane", "a compact photoreceptor layer",
                     "an undisturbed outer nuclear layer", "a dry macula of normal thickness",
                     "an even nerve fibre layer", "a clean boundary between retina and vitreous",
                     "uniform choroidal texture below the retina"],
        "findings": ["a {} cluster of drusen", "a {} choroidal neovascular membrane",
                     "a {} bump of the pigment epithelium", "a {} hyperreflective subretinal lesion",
                     "a {} intraretinal cyst", "a {} pocket of subretinal fluid",
                     "a {} fibrovascular pigment epithelial detachment",
                     "a {} break in the photoreceptor band", "a {} group of hyperreflective foci",
                     "a {} area of cystoid oedema"],
        "places":   ["at the fovea", "left of the fovea", "right of the fovea", "in the central macula",
                     "in the parafoveal region", "at the nasal side of the macula",
                     "at the temporal side of the macula", "beside the foveal pit"],
        "overall":  ["diabetic macular oedema and a raised fovea",
                     "an undulating pigment epithelium over many drusen",
                     "neovascularisation that lifts and distorts the outer retina",
                     "a thickened retina and scattered dark cysts",
                     "a flattened foveal pit above leaking vessels"],
    },
    "Chest": {
        "voice":    "report",
        "views":    ["frontal chest radiograph", "chest X-ray film", "PA chest X-ray",
                     "posteroanterior radiograph of the thorax"],
        "normal":   ["clear lungs on both sides", "sharp costophrenic angles", "a heart of normal size",
                     "a central trachea", "well-aerated lung fields", "crisp diaphragm contours",
                     "fine, regular vascular markings", "normal hilar shadows",
                     "a symmetric rib cage and clear apices", "a smooth mediastinal outline",
                     "evenly transparent lung zones"],
        "findings": ["a {} airspace opacity", "a {} consolidation", "a {} patchy infiltrate",
                     "a {} area of ground-glass opacity", "a {} pulmonary nodule", "a {} mass",
                     "a {} lobar opacity", "a {} region of atelectasis", "a {} hazy shadow"],
        "places":   ["in the right upper zone", "in the left upper zone", "in the right middle lobe",
                     "in the right lower lobe", "in the left lower lobe", "in the left perihilar region",
                     "in the right perihilar region", "at the right lung base", "at the left lung base",
                     "behind the heart"],
        "overall":  ["a pleural effusion blunting the costophrenic angle", "an enlarged cardiac silhouette",
                     "diffuse infiltrates in both lungs", "a collapsed lung beside a visible pleural line",
                     "pulmonary oedema and hazy perihilar shadows", "a widened mediastinum"],
    },
    "Histopathology": {
        "voice":    "report",
        "views":    ["H&E-stained lymph node section", "histopathology image of a lymph node",
                     "microscopic field of lymphoid tissue", "haematoxylin and eosin tissue section"],
        "normal":   ["densely packed small lymphocytes", "a regular lymphoid follicle",
                     "small, round, uniform nuclei", "dark nuclei in scant cytoplasm",
                     "an open sinus lined by flat cells", "a germinal centre inside a clear mantle zone",
                     "loose fat beside lymphoid tissue", "thin pink collagen fibres",
                     "thin-walled capillaries", "evenly stained lymphoid tissue",
                     "scattered histiocytes among lymphocytes"],
        "findings": ["a {} nest of tumour cells", "a {} sheet of large atypical cells",
                     "a {} cluster of pleomorphic nuclei", "a {} gland formed by malignant cells",
                     "a {} group of cells that show prominent nucleoli",
                     "a {} island of metastatic carcinoma", "a {} focus of mitotic figures",
                     "a {} cord of invasive cells", "a {} area of crowded hyperchromatic nuclei"],
        "places":   ["in the centre of the field", "at the edge of the field",
                     "in the upper half of the field", "in the lower half of the field",
                     "in the subcapsular sinus", "among small lymphocytes", "within fibrous stroma",
                     "next to a lymphoid follicle", "beside a blood vessel", "invading fatty tissue"],
        "overall":  ["an effaced nodal architecture", "necrosis and cell debris",
                     "a desmoplastic stroma between tumour cells",
                     "enlarged, irregular nuclei and coarse chromatin",
                     "a high nuclear to cytoplasmic ratio"],
        "severity": ["small", "large", "solitary", "conspicuous"],
    },
    "Skin_HAM10000": {
        "voice":    "dermoscopy",
        "views":    ["dermoscopic image", "polarised dermoscopy picture", "dermatoscope close-up",
                     "magnified skin image"],
        "normal":   ["a regular pigment network", "a symmetric shape", "one even shade of brown",
                     "a smooth, round outline", "evenly spread dots and globules",
                     "a network that fades gently at the edge", "a uniform cobblestone pattern",
                     "the same structure in all quadrants", "a flat, evenly tanned surface",
                     "a rim of regular brown globules", "comma vessels in soft, skin-coloured tissue"],
        "findings": ["a {} blue-white veil", "a {} atypical pigment network", "{} irregular streaks",
                     "a {} black blotch", "{} regression structures", "{} shiny white lines",
                     "{} irregular dots and globules", "{} polymorphous vessels", "a {} structureless area",
                     "{} pseudopods"],
        "places":   ["at the periphery", "in the centre of the lesion", "on one side of the lesion",
                     "at the upper margin", "at the lower margin", "across half of the lesion",
                     "near the border", "in an off-centre position"],
        "overall":  ["asymmetric colour and structure", "an irregular, notched border",
                     "several shades of brown, black and blue", "a chaotic multicomponent pattern",
                     "pigment that ends abruptly at the border"],
    },
    "Skin_ISIC2019": {
        "voice":    "dermoscopy",
        "views":    ["dermoscopy photograph", "dermatoscopic image", "epiluminescence microscopy image",
                     "clinical close-up"],
        "normal":   ["a balanced, symmetric pattern", "a clear-cut regular border",
                     "uniform light brown pigment", "a fine mesh of even lines",
                     "round globules of the same size", "an orderly reticular pattern",
                     "a homogeneous tan colour", "a single soft colour throughout",
                     "an oval, even-edged shape", "pigment centred and fading outwards",
                     "a central plateau and a regular network around it"],
        "findings": ["a {} grey-blue area", "a {} scar-like white patch", "{} broken network lines",
                     "{} radial streaming", "a {} dark, irregular blotch", "{} asymmetric pigmentation",
                     "{} peppering of grey dots", "a {} ulcerated spot", "{} dotted and linear vessels",
                     "a {} milky red area"],
        "places":   ["at the outer edge", "in the middle of the lesion", "in one quadrant of the lesion",
                     "on the left side of the lesion", "on the right side of the lesion",
                     "towards the border", "in the upper half of the lesion",
                     "in the lower half of the lesion"],
        "overall":  ["an uneven shape and scalloped margins", "a mixture of black, blue, red and white",
                     "a disordered pattern without symmetry", "a ragged, variegated outline",
                     "colour that varies from tan to black"],
    },
    # ----------------------------------------------------------------------------- electroluminescence images
    "Solar": {
        "views":    ["monocrystalline solar cell under electroluminescence", "silicon solar cell",
                     "polycrystalline solar cell in an electroluminescence image",
                     "photovoltaic cell glowing in the infrared"],
        "normal":   ["an even, bright glow", "straight, parallel busbars", "unbroken grid fingers",
                     "uniform luminescence from edge to edge", "a natural grain of silicon crystals",
                     "an intact wafer", "steady brightness towards the borders", "sharp cell borders",
                     "good contacts along every busbar", "regular silver fingers between the busbars",
                     "the same light level on both halves"],
        "findings": ["a {} crack", "a {} dark area", "a {} branching microcrack", "a {} inactive region",
                     "a {} finger interruption", "a {} dark spot", "a {} isolated fragment",
                     "a {} diagonal crack line", "a {} patch of defective material"],
        "places":   ["in the cell centre", "along the upper edge", "along the lower edge",
                     "at the left border", "at the right border", "next to a busbar", "between two busbars",
                     "in one corner", "among the grid fingers"],
        "overall":  ["a large part that stays dark", "shattered silicon that is electrically dead",
                     "one half darker than the other", "many cracks running in all directions",
                     "rows of dark, disconnected fingers"],
    },
    # --------------------------------------------------------------------------------------- industrial parts
    "mvtec/bottle": {
        "views":    ["glass bottle seen from above", "dark glass bottle", "round bottle mouth",
                     "bottle on the filling line"],
        "normal":   ["an unbroken circular rim", "a clean bottle neck", "smooth, clear glass",
                     "an even ring of reflections", "a dark, empty inside", "a perfectly round mouth",
                     "a clean glass bottom", "evenly thick walls", "a polished rim without chips",
                     "concentric bright rings"],
        "findings": ["a {} chip", "a {} crack", "a {} broken spot", "a {} scratch", "a {} piece of dirt",
                     "a {} fragment of plastic", "a {} white stain", "a {} foreign body"],
        "places":   ["on the rim", "inside the neck", "on the bottom of the bottle", "on the glass wall",
                     *POSITIONS],
        "overall":  ["a large part of the rim broken off", "jagged glass all round", "contamination inside",
                     "splinters of broken glass"],
    },
    "mvtec/cable": {
        "views":    ["electric cable in cross-section", "cut power cable", "three-core cable",
                     "three-wire cable end"],
        "normal":   ["three complete inner conductors", "round, even insulation",
                     "tightly packed copper strands", "one wire of each colour",
                     "a smooth, grey outer sheath", "bright copper in every core",
                     "evenly thick insulation around each wire", "strands that stay inside their core",
                     "a clean, straight cut", "three cores in the right order"],
        "findings": ["a {} cut", "a {} hole", "a {} puncture", "a {} tear", "a {} crushed spot",
                     "a {} scratch", "a {} piece of dirt", "a {} thin spot"],
        "places":   ["in the inner insulation", "in the outer sheath", "beside a conductor",
                     "between two wires", *POSITIONS],
        "overall":  ["a missing wire", "a bent copper strand", "two wires of the same colour",
                     "a core without its copper strands", "frayed strands bent out of the core",
                     "insulation poked by a sharp tool"],
    },
    "mvtec/capsule": {
        "views":    ["medicine capsule", "two-coloured gelatine capsule", "hard-shell drug capsule",
                     "capsule lying flat"],
        "normal":   ["a smooth, glossy shell", "a crisp printed number", "two halves that close tightly",
                     "evenly rounded ends", "an even colour on each half", "a straight join in the middle",
                     "a clean, intact surface", "fully readable print", "a regular oval shape",
                     "a steady highlight along the shell"],
        "findings": ["a {} crack", "a {} scratch", "a {} dent", "a {} hole", "a {} squeezed spot",
                     "a {} smear", "a {} puncture", "a {} chip"],
        "places":   ["on the printed half", "at the rounded end", "at the seam", "on the dark half",
                     *POSITIONS],
        "overall":  ["blurred, faulty print", "a squeezed, misshapen body", "contents leaking from the shell",
                     "a shell split open"],
    },
    "mvtec/carpet": {
        "views":    ["woven carpet", "grey carpet sample", "carpet texture seen from above",
                     "piece of carpet fabric"],
        "normal":   ["a regular weave", "an even grey colour", "tight, parallel threads",
                     "a uniform pile height", "clean, unstained fibres", "a repeating pattern of loops",
                     "threads of the same thickness", "an undamaged pile", "straight rows of stitches",
                     "an even surface from corner to corner"],
        "findings": ["a {} cut", "a {} hole", "a {} stain", "a {} colour change", "a {} loose thread",
                     "a {} metal splinter", "a {} frayed spot", "a {} pulled loop"],
        "places":   ["in the weave", "on the woven surface", "close to a corner", *POSITIONS],
        "overall":  ["a foreign thread lying on the weave", "torn fibres", "a weave interrupted by a slit",
                     "patches of another colour"],
    },
    "mvtec/grid": {
        "views":    ["metal wire grid", "steel mesh", "wire lattice", "metal grating seen from above"],
        "normal":   ["regular diamond openings", "straight, parallel wires", "evenly spaced bars",
                     "unbroken crossings", "the same mesh size everywhere", "clean, shiny metal",
                     "a strictly repeating pattern", "wires of equal thickness",
                     "tight joints at every crossing", "a flat, undistorted mesh"],
        "findings": ["a {} broken wire", "a {} bent wire", "a {} gap", "a {} lump of glue",
                     "a {} metal shaving", "a {} loose thread", "a {} distorted opening",
                     "a {} deformed crossing"],
        "places":   ["in the mesh", "at a crossing", "along one side", *POSITIONS],
        "overall":  ["a warped mesh", "wires torn apart", "openings of unequal size",
                     "a foreign object caught in the mesh"],
    },
    "mvtec/hazelnut": {
        "views":    ["hazelnut", "single hazelnut in its shell", "brown nut", "hazelnut on a dark ground"],
        "normal":   ["a smooth brown shell", "an intact, closed shell", "fine vertical stripes",
                     "a pale, round base", "a natural pointed tip", "an even hazel colour",
                     "a rounded, full shape", "a dry, clean surface", "a soft natural grain",
                     "an unblemished shell"],
        "findings": ["a {} crack", "a {} hole", "a {} cut", "a {} scratch", "a {} printed mark",
                     "a {} white scrape", "a {} worm hole", "a {} chipped spot"],
        "places":   ["on the shell", "near the tip", "on the pale base", "along the side", *POSITIONS],
        "overall":  ["a shell cracked open", "letters printed on the shell", "a piece of shell missing",
                     "a kernel showing through"],
    },
    "mvtec/leather": {
        "views":    ["brown leather swatch", "leather surface", "piece of tanned leather",
                     "leather hide seen from above"],
        "normal":   ["a fine, even grain", "a uniform brown colour", "soft natural pores",
                     "a smooth, unbroken surface", "regular tiny wrinkles", "a matt, even finish",
                     "evenly dyed skin", "a flat, clean texture", "a consistent pebbled pattern",
                     "the same tone throughout"],
        "findings": ["a {} cut", "a {} fold", "a {} drop of glue", "a {} hole", "a {} colour stain",
                     "a {} scratch", "a {} poke mark", "a {} crease"],
        "places":   ["on the grain side", "close to a corner", "along one side", *POSITIONS],
        "overall":  ["a sharp crease across the hide", "a slit through the leather",
                     "dried glue on the grain", "a punctured surface"],
    },
    "mvtec/metal_nut": {
        "views":    ["metal nut seen from above", "toothed metal nut", "machined nut on a dark ground",
                     "threaded steel nut"],
        "normal":   ["all of its teeth in place", "clean, bare metal", "a round central hole",
                     "teeth of equal shape", "evenly machined edges", "a regular silver shine",
                     "a clean inner thread", "symmetric corners", "a flat, smooth face",
                     "the right side facing up"],
        "findings": ["a {} scratch", "a {} dent", "a {} gouge", "a {} rust spot", "a {} discoloured patch",
                     "a {} nick", "a {} burr", "a {} coloured smear"],
        "places":   ["on the metal face", "at the outer edge", "beside the hole", *POSITIONS],
        "overall":  ["a missing tooth", "a bent tooth", "the wrong side facing up", "rust on the metal",
                     "deep scratches across the face"],
    },
    "mvtec/pill": {
        "views":    ["white oval pill", "coated tablet", "red-speckled medicine pill",
                     "pharmaceutical tablet"],
        "normal":   ["a smooth white coating", "sharp embossed letters", "evenly spread red speckles",
                     "a complete oval shape", "a clean, undamaged edge", "an even, rounded surface",
                     "a fully legible imprint", "an intact coating", "a uniform pale colour",
                     "the right speckle pattern"],
        "findings": ["a {} crack", "a {} scratch", "a {} yellow stain", "a {} chip", "a {} dirt particle",
                     "a {} colour spot", "a {} dent", "a {} pit"],
        "places":   ["at the edge of the tablet", "on the imprint", "on the coating", *POSITIONS],
        "overall":  ["a faulty imprint", "a broken-off end", "the wrong colour", "a crumbling surface"],
    },
    "mvtec/screw": {
        "views":    ["metal screw", "steel wood screw", "screw lying on a light ground", "threaded screw"],
        "normal":   ["an even, sharp thread", "a pointed, straight tip", "an undamaged head",
                     "evenly pitched turns", "a straight shank", "a clean silver surface",
                     "a smooth, slender neck", "a thread without burrs", "a well-formed countersunk head",
                     "flanks of equal height"],
        "findings": ["a {} scratch", "a {} nick", "a {} dent", "a {} burr", "a {} flattened spot",
                     "a {} chipped flank", "a {} worn patch", "a {} bent edge"],
        "places":   ["on the head", "on the neck", "at the tip", "on the thread", "on the side of the thread",
                     *POSITIONS],
        "overall":  ["a bent, damaged tip", "a stripped thread", "a blunted point"],
    },
    "mvtec/tile": {
        "views":    ["stone tile", "speckled ceramic tile", "grey and white floor tile",
                     "terrazzo tile surface"],
        "normal":   ["an even speckled pattern", "a clean, glazed surface", "naturally scattered dark flecks",
                     "a smooth, flat face", "a uniform mix of grains", "an unbroken surface",
                     "natural mottling throughout", "a dry, matt finish", "evenly spread dark grains",
                     "the same texture everywhere"],
        "findings": ["a {} crack", "a {} strip of glue", "a {} oil stain", "a {} grey brush stroke",
                     "a {} rough patch", "a {} chip", "a {} scratch", "a {} dull spot"],
        "places":   ["on the glazed face", "close to a corner", "along one side", *POSITIONS],
        "overall":  ["a crack running from side to side", "a transparent film of glue",
                     "a greasy, shiny patch", "a surface ground rough"],
    },
    "mvtec/toothbrush": {
        "views":    ["toothbrush head", "row of toothbrush bristles", "toothbrush seen from above",
                     "plastic toothbrush"],
        "normal":   ["straight, upright bristles", "complete tufts in every hole", "bristles of even length",
                     "clean bristle tips", "evenly spaced tufts", "regular rows of coloured bristles",
                     "a tidy bristle field", "dense, full tufts", "a well-trimmed surface",
                     "tufts pointing the same way"],
        "findings": ["a {} bent bristle", "a missing tuft", "a {} splayed tuft", "a {} gap",
                     "a {} foreign fibre", "a {} crushed tuft", "a {} speck of dirt", "a {} twisted bristle"],
        "places":   ["in the outer row", "at the far end", "in the middle row", *POSITIONS],
        "overall":  ["bristles spread in all directions", "tufts torn out of the head",
                     "worn, frayed bristles", "uneven bristle length"],
    },
    "mvtec/transistor": {
        "views":    ["transistor on a circuit board", "three-legged transistor", "black transistor package",
                     "soldered transistor"],
        "normal":   ["three straight leads", "each lead in its hole", "an intact black housing",
                     "an upright, centred package", "evenly spaced legs", "shiny metal leads",
                     "a clean, flat front", "a correctly seated part", "leads of equal length",
                     "undamaged plastic edges"],
        "findings": ["a {} crack", "a {} chip", "a {} scratch", "a {} dent", "a {} nick", "a {} burn mark",
                     "a {} stain", "a {} notch"],
        "places":   ["on the housing", "on the left lead", "on the middle lead", "on the right lead",
                     *POSITIONS],
        "overall":  ["a bent lead", "a lead that was cut off", "a tilted, misplaced package",
                     "an empty place where the part should be", "a lead beside its hole",
                     "a broken corner of the housing"],
    },
    "mvtec/wood": {
        "views":    ["wooden board", "plank of sawn wood", "vertically grained wood surface",
                     "brown wood panel"],
        "normal":   ["a straight, regular grain", "a natural brown tone", "a smooth, planed face",
                     "fine parallel fibres", "evenly coloured wood", "gentle variations of the grain",
                     "a dry, clean face", "unbroken growth lines", "a soft natural pattern",
                     "the same finish throughout"],
        "findings": ["a {} scratch", "a {} drilled hole", "a {} stain", "a {} wet patch",
                     "a {} discoloured spot", "a {} gouge", "a {} crack", "a {} splintered spot"],
        "places":   ["on the planed face", "along one side", "close to a corner", *POSITIONS],
        "overall":  ["spilled liquid on the surface", "several drill holes",
                     "long scratches across the fibres", "a patch of paint"],
    },
    "mvtec/zipper": {
        "views":    ["closed zipper", "black zip fastener", "metal zipper", "zip on woven tape"],
        "normal":   ["evenly interlocked teeth", "straight rows of teeth", "clean black fabric tape",
                     "all of its teeth in place", "a tightly woven border", "teeth of the same size",
                     "smooth, unfrayed edges", "a regular chain from top to bottom",
                     "even stitching along the tape", "a flat, undistorted tape"],
        "findings": ["a {} broken tooth", "a {} gap", "a {} tear", "a {} frayed spot", "a {} squeezed tooth",
                     "a {} loose thread", "a {} rough patch", "a {} hole"],
        "places":   ["on the left side", "on the right side", "halfway along the zip", *POSITIONS],
        "overall":  ["teeth that split apart", "several teeth missing", "torn, frayed fabric",
                     "teeth squeezed out of line"],
    },
    "mpdd/bracket_black": {
        "views":    ["black metal bracket", "black painted bracket", "angled steel bracket",
                     "black mounting bracket"],
        "normal":   ["an even coat of black paint", "clean drilled holes", "straight, sharp bends",
                     "a smooth matt finish", "undamaged edges", "every hole in its place",
                     "uniform black powder coating", "flat, parallel arms", "a surface free of bare metal",
                     "neatly rounded corners"],
        "findings": ["a {} scratch", "a {} paint chip", "a {} spot of bare metal", "a {} dent",
                     "a {} dull patch", "a {} rub mark", "a {} bubble in the paint", "a {} gouge"],
        "places":   ["on the flat arm", "along the bend", "beside a hole", *POSITIONS],
        "overall":  ["a hole where none belongs", "paint scraped off the edge",
                     "bright scratches in the black coating", "a crooked arm"],
    },
    "mpdd/bracket_brown": {
        "views":    ["brown metal bracket", "welded bracket", "brown painted steel bracket",
                     "assembled bracket"],
        "normal":   ["straight arms", "all parts mounted as drawn", "even brown paint",
                     "right angles at every bend", "matching left and right parts", "firmly fitted pins",
                     "clean weld seams", "a level base", "parts in the correct order", "aligned holes"],
        "findings": ["a {} bend", "a {} dent", "a {} crack", "a {} scratch", "a {} paint chip",
                     "a {} twisted spot", "a {} notch", "a {} gap"],
        "places":   ["on the long arm", "at the corner", "near the base", *POSITIONS],
        "overall":  ["an arm bent out of shape", "parts that do not match", "a missing part",
                     "a misaligned pin", "a mirrored, wrongly fitted piece"],
    },
    "mpdd/bracket_white": {
        "views":    ["white metal bracket", "white painted bracket", "white coated steel bracket",
                     "light mounting bracket"],
        "normal":   ["an even white coating", "a bright, spotless finish", "smooth painted edges",
                     "well-covered corners", "clean, round holes", "uniform gloss", "straight, level arms",
                     "paint free of runs", "a closed, opaque coat", "undamaged bends"],
        "findings": ["a {} scratch", "a {} dark spot", "a {} paint run", "a {} bare patch", "a {} scuff",
                     "a {} chip", "a {} blister in the paint", "a {} stain"],
        "places":   ["on the flat face", "along the bend", "beside a hole", *POSITIONS],
        "overall":  ["patchy, faulty painting", "metal showing through the white coat", "scratched paint",
                     "dirt under the coating"],
    },
    "mpdd/connector": {
        "views":    ["metal connector", "pipe connector", "machined connector piece", "steel coupling"],
        "normal":   ["all parts fitted", "a clean thread", "a round, open bore", "matching ends",
                     "a tightly seated ring", "evenly turned metal", "a straight body",
                     "correctly paired halves", "undamaged flanks", "a smooth outer sleeve"],
        "findings": ["a {} scratch", "a {} dent", "a {} gap", "a {} burr", "a {} rust spot", "a {} chip",
                     "a {} crushed spot", "a {} notch"],
        "places":   ["at the joint", "on the sleeve", "at the open end", *POSITIONS],
        "overall":  ["mismatched parts", "a missing inner part", "a part of the wrong type",
                     "two halves that do not fit", "a ring in the wrong place"],
    },
    "mpdd/metal_plate": {
        "views":    ["metal plate", "bare steel plate", "stamped sheet-metal plate", "flat metal part"],
        "normal":   ["clean, bright metal", "a smooth, even surface", "sharp, straight edges",
                     "neatly punched holes", "a uniform grey sheen", "a flat, level face", "rust-free steel",
                     "evenly brushed metal", "clean corners", "a dry surface of one colour"],
        "findings": ["a {} rust spot", "a {} scratch", "a {} patch of brown corrosion", "a {} dent",
                     "a {} pit", "a {} stain", "a {} scuff", "a {} flaking area"],
        "places":   ["around a hole", "along the edge", "on the flat face", *POSITIONS],
        "overall":  ["rust all over the surface", "heavy brown corrosion", "deep scratches in the steel",
                     "a dull, oxidised face"],
    },
    "mpdd/tubes": {
        "views":    ["bundle of metal tubes", "set of steel tubes", "group of cut tubes",
                     "batch of round tubes"],
        "normal":   ["round, open ends", "straight walls", "evenly cut ends", "smooth, shiny metal",
                     "tubes of the same diameter", "circular cross-sections", "undented sides",
                     "clean, open bores", "tubes of equal length", "walls of even thickness"],
        "findings": ["a {} dent", "a {} flattened spot", "a {} bend", "a {} crushed spot", "a {} scratch",
                     "a {} split", "a {} bulge", "a {} kink"],
        "places":   ["at the tube end", "along the wall", "in the middle of the bundle", *POSITIONS],
        "overall":  ["one tube squashed flat", "oval, deformed ends", "a bent tube among straight ones",
                     "a torn, ragged tube end"],
    },
    # BTAD numbers its three products and names none: these blocks go by looks; amend them by your images.
    "btad/01": {
        "views":    ["round metal part", "circular machined housing", "turned metal disc",
                     "round product on the test stand"],
        "normal":   ["smooth, concentric rings", "an even metal surface", "a clean circular outline",
                     "uniform grey tone", "a regular machined texture", "an undamaged face",
                     "a sharp, round edge", "even reflections", "a clean centre",
                     "the same finish all round"],
        "findings": ["a {} scratch", "a {} dent", "a {} pit", "a {} scuff", "a {} dark stain", "a {} chip",
                     "a {} crack", "a {} rough patch"],
        "places":   ["on the outer ring", "near the centre", "on the round face", *POSITIONS],
        "overall":  ["a worn, scraped surface", "several parallel scratches", "a damaged rim",
                     "smeared dirt on the face"],
    },
    "btad/02": {
        "views":    ["wooden panel", "fibrous panel", "brown wood-like surface", "textured product surface"],
        "normal":   ["an even fibre pattern", "a uniform brown tone", "a regular, fine grain",
                     "a smooth, closed surface", "parallel natural lines", "a clean finish",
                     "soft, even shading", "the same texture throughout", "an unbroken top layer",
                     "steady colour from side to side"],
        "findings": ["a {} scratch", "a {} stain", "a {} pit", "a {} pale streak", "a {} gouge",
                     "a {} dark spot", "a {} crack", "a {} rubbed patch"],
        "places":   ["on the grained face", "along one side", "close to a corner", *POSITIONS],
        "overall":  ["a discoloured strip", "scratches against the grain", "a torn top layer",
                     "blotchy, uneven colour"],
    },
    "btad/03": {
        "views":    ["ring-shaped metal part", "wheel-shaped part", "dark-centred round part", "metal ring"],
        "normal":   ["a closed, even ring", "a smooth inner wall", "a clean, round rim",
                     "uniform brightness all round", "a regular turned surface", "an undamaged outer edge",
                     "an evenly dark centre", "a constant ring width", "sharp contours",
                     "a spotless metal band"],
        "findings": ["a {} scratch", "a {} nick", "a {} dent", "a {} bright mark", "a {} stain", "a {} burr",
                     "a {} crack", "a {} worn spot"],
        "places":   ["on the ring", "at the inner edge", "at the outer edge", *POSITIONS],
        "overall":  ["a broken ring", "an uneven, damaged rim", "scratches along the ring",
                     "dirt on the inner wall"],
    },
    "visa/candle": {
        "views":    ["tray of candles", "group of tea lights", "set of white wax candles",
                     "tray of candles seen from above"],
        "normal":   ["smooth white wax", "a straight wick in every candle", "flat, level wax surfaces",
                     "round, complete edges", "centred wicks", "clean, undamaged cups",
                     "wax of one even colour", "whole candles side by side", "short, upright wicks",
                     "well-filled cups"],
        "findings": ["a {} missing chunk of wax", "a {} crack in the wax", "a {} coloured spot",
                     "a {} lump of extra wax", "a {} foreign particle", "a {} hole in the wax", "a {} dent",
                     "a {} scratch"],
        "places":   ["on one candle", "beside a wick", "at the rim of a candle", *POSITIONS],
        "overall":  ["wax melted over the rim", "a bent, misplaced wick", "a candle without a wick",
                     "a damaged corner of the packaging"],
    },
    "visa/capsules": {
        "views":    ["group of gel capsules", "handful of soft capsules", "set of green capsules",
                     "spread of softgel capsules"],
        "normal":   ["clear, glossy shells", "full, rounded shapes", "an even green colour",
                     "clean, tight seams", "smooth, shiny surfaces", "capsules of the same size",
                     "bright, regular highlights", "well-filled shells", "intact, dry shells",
                     "an even translucent tone"],
        "findings": ["a {} blister", "a {} discoloured patch", "a {} scratch", "a {} leak", "a {} dent",
                     "a {} crack", "a {} cloudy spot", "a {} wrinkle"],
        "places":   ["on one capsule", "at a seam", "at the end of a capsule", *POSITIONS],
        "overall":  ["a leaking capsule", "an air bubble inside a capsule", "a misshapen, flattened capsule",
                     "sticky liquid between the capsules", "one capsule of the wrong colour"],
    },
    "visa/cashew": {
        "views":    ["cashew nut", "single cashew kernel", "curved cashew", "cashew on a plain ground"],
        "normal":   ["a smooth, pale surface", "a whole kidney shape", "an even cream colour",
                     "unbroken ends", "a natural soft curve", "a clean, unspotted kernel",
                     "a gently rounded back", "a fine natural groove", "a full, plump body",
                     "uniform light roasting"],
        "findings": ["a {} burnt spot", "a {} scratch", "a {} hole", "a {} brown stain", "a {} crack",
                     "a {} chipped edge", "a {} pit", "a {} dark speck"],
        "places":   ["at one end", "on the curved back", "on the inner side", *POSITIONS],
        "overall":  ["a kernel broken in the middle", "a corner broken off", "two kernels stuck together",
                     "a scorched, dark surface"],
    },
    "visa/chewinggum": {
        "views":    ["piece of chewing gum", "white gum pillow", "chewing gum dragee",
                     "coated piece of chewing gum"],
        "normal":   ["a smooth white coating", "four complete corners", "an even pillow shape",
                     "straight, clean edges", "a uniform sugar shell", "an unbroken surface",
                     "a soft, matt sheen", "an intact outline", "a spotless top side",
                     "evenly rounded edges"],
        "findings": ["a {} crack", "a {} scratch", "a {} chip", "a {} discoloured spot", "a {} missing chunk",
                     "a {} hole", "a {} dent", "a {} dirty speck"],
        "places":   ["at one corner", "along the edge", "on the coating", *POSITIONS],
        "overall":  ["a corner missing", "a coating that crumbles away", "a piece bitten out of the side",
                     "a split shell"],
    },
    "visa/fryum": {
        "views":    ["wheel-shaped fryum", "fried snack wheel", "round, spoked fryum", "single crisp snack"],
        "normal":   ["a complete outer ring", "unbroken spokes", "an even golden colour",
                     "a regular wheel shape", "open, clean gaps", "a crisp, dry surface",
                     "spokes of equal width", "a round outline", "light, even frying", "a whole centre"],
        "findings": ["a {} burnt spot", "a {} crack", "a {} broken piece", "a {} dark stain", "a {} scratch",
                     "a {} missing bit", "a {} coloured speck", "a {} lump"],
        "places":   ["on the outer ring", "on one spoke", "at the hub", *POSITIONS],
        "overall":  ["a broken ring", "a missing spoke", "two pieces stuck together", "a burnt, brown side"],
    },
    "visa/macaroni1": {
        "views":    ["set of macaroni", "row of yellow macaroni", "group of dry elbow pasta",
                     "tray of macaroni"],
        "normal":   ["smooth yellow surfaces", "an even curve in every piece", "clean-cut ends",
                     "a uniform pasta colour", "whole, unbroken tubes", "pieces of the same size",
                     "round, open ends", "a dry, spotless surface", "intact edges", "pieces lying apart"],
        "findings": ["a {} chip", "a {} crack", "a {} scratch", "a {} dark spot", "a {} broken bit",
                     "a {} brown stain", "a {} hole", "a {} pale blotch"],
        "places":   ["on one macaroni", "at the cut end", "along the curve", *POSITIONS],
        "overall":  ["one piece broken in two", "a piece chipped at the rim", "a discoloured piece",
                     "a split pasta tube"],
    },
    "visa/macaroni2": {
        "views":    ["scatter of macaroni", "loose pile of dry macaroni", "handful of elbow pasta",
                     "spread of orange macaroni"],
        "normal":   ["evenly coloured pasta", "smooth, curved tubes", "unchipped ends",
                     "an even shine on every piece", "complete pieces only", "walls without cracks",
                     "a regular tube shape", "clean, plain surfaces", "neatly cut openings",
                     "one uniform shade"],
        "findings": ["a {} crack", "a {} chip", "a {} scratch", "a {} black speck", "a {} colour spot",
                     "a {} break", "a {} dent", "a {} rough patch"],
        "places":   ["on one piece", "at an opening", "on the bent side", *POSITIONS],
        "overall":  ["a piece broken down the middle", "a fragment among whole pieces",
                     "a tube that lacks an end", "stained, spotted pasta"],
    },
    "visa/pcb1": {
        "views":    ["printed circuit board", "small circuit board", "green printed circuit board",
                     "electronic module"],
        "normal":   ["every component in place", "straight header pins", "shiny, clean solder joints",
                     "sharp printed lettering", "aligned chips", "unbroken copper tracks",
                     "an undamaged solder resist", "evenly soldered pads", "clean mounting holes",
                     "a spotless board surface"],
        "findings": ["a {} scratch", "a {} burn", "a {} solder bridge", "a {} melted spot",
                     "a {} foreign particle", "a {} dirty spot", "a {} lifted pad", "a {} crack"],
        "places":   ["beside a chip", "on the solder side", "next to the pins", *POSITIONS],
        "overall":  ["a missing component", "bent header pins", "a melted component",
                     "bridged solder between two pads"],
    },
    "visa/pcb2": {
        "views":    ["printed circuit board", "sensor circuit board", "pin-header circuit board",
                     "populated board"],
        "normal":   ["all parts soldered", "parallel, unbent pins", "bright, smooth solder",
                     "intact copper traces", "legible white print", "correctly placed resistors",
                     "an even solder resist", "upright, centred parts", "clean contacts",
                     "a board without marks"],
        "findings": ["a {} scratch", "a {} melted area", "a {} burn mark", "a {} blob of solder",
                     "a {} broken trace", "a {} foreign particle", "a {} flux stain", "a {} pale patch"],
        "places":   ["near the connector", "among the traces", "beside a resistor", *POSITIONS],
        "overall":  ["a bent pin", "a missing part", "a component soldered askew",
                     "melted plastic on a part"],
    },
    "visa/pcb3": {
        "views":    ["printed circuit board", "single-chip circuit board", "compact electronic board",
                     "sensor module"],
        "normal":   ["a full set of components", "pins in a straight row", "clean soldering",
                     "unbroken conductor tracks", "a clear component print", "level, well-seated chips",
                     "smooth board edges", "undamaged diodes", "regular solder points",
                     "an even board colour"],
        "findings": ["a {} scratch", "a {} scorch mark", "a {} molten spot", "a {} solder splash", "a {} cut",
                     "a {} dent", "a {} foreign particle", "a {} patch of residue"],
        "places":   ["next to a diode", "between two tracks", "around a pin", *POSITIONS],
        "overall":  ["an empty solder pad", "crooked pins", "a missing diode", "a burnt, blackened part"],
    },
    "visa/pcb4": {
        "views":    ["printed circuit board", "densely populated circuit board", "assembled electronic board",
                     "power module board"],
        "normal":   ["a complete set of parts", "components in their right places",
                     "firm, shiny solder joints", "clean copper contacts", "undamaged capacitors",
                     "crisp board lettering", "straight connector pins", "an untouched solder resist",
                     "sound, level parts", "a dust-free surface"],
        "findings": ["a {} scratch", "a {} burnt spot", "a {} patch of dirt", "a {} broken part",
                     "a {} blob of surplus solder", "a {} foreign particle", "a {} crack",
                     "a {} scraped track"],
        "places":   ["beside a capacitor", "near the socket", "on the board edge", *POSITIONS],
        "overall":  ["a missing component", "an extra component", "a part in the wrong place",
                     "a damaged, charred component"],
    },
    "visa/pipe_fryum": {
        "views":    ["pipe-shaped fryum", "tubular fried snack", "hollow fryum", "short tube of crisp snack"],
        "normal":   ["a complete round tube", "an even golden tone", "clean, open ends", "a dry, crisp wall",
                     "a straight outline", "walls of equal thickness", "unbroken edges",
                     "a light, even colour", "a regular cylinder shape", "a spotless surface"],
        "findings": ["a {} burnt spot", "a {} crack", "a {} chip", "a {} dark speck", "a {} scratch",
                     "a {} coloured stain", "a {} hole", "a {} missing bit"],
        "places":   ["at the open end", "on the wall", "along the tube", *POSITIONS],
        "overall":  ["a broken-off end", "two tubes stuck together", "a squashed, misshapen tube",
                     "a scorched brown side"],
    },
}

# For a name that has no block above; {classname} is the words of `--classname`, or of the name.
GENERIC = {
    "voice":    "plain",
    "views":    ["image of {classname}", "picture of {classname}", "close-up of {classname}",
                 "view of {classname}"],
    "normal":   ["a regular appearance", "an intact structure", "an even texture",
                 "uniform colour and brightness", "clean, clear outlines", "all parts in place",
                 "a normal shape", "an undisturbed pattern", "smooth contours", "a healthy, sound look",
                 "the expected proportions"],
    "findings": ["a {} irregular area", "a {} dark spot", "a {} bright spot", "a {} discoloured patch",
                 "a {} crack", "a {} lesion", "a {} hole", "a {} distorted region", "a {} foreign body"],
    "places":   ["on one side", "along the border", "in the main structure", *POSITIONS],
    "overall":  ["a missing part", "a deformed shape", "an unusual, uneven texture", "visible damage"],
}
# fmt: on


# ---------------------------------------------------------------------------------------------------- Builder

SHAPE = 'it must be {"normal": {"prompts": [...]}, "abnormal": {"prompts": [...]}}'
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which JSON can hold and UTF-8 can't


def class_name(obj: str) -> str:
    """The words for `obj` in the templates: from CLASS_NAMES, or its own name without folder and underscores.

    Raises InputError when nothing is left of the name.
    """
    name = CLASS_NAMES.get(obj) or obj.rstrip("/").rpartition("/")[2].replace("_", " ").strip()
    if not name:
        raise InputError(f"no words for the object {obj!r}; give --classname")
    return name


def sentences(obj: str, prompts: str | Path = "all", classname: str | None = None) -> tuple[list[str], list[str]]:
    """The (normal, abnormal) sentences of `obj`, without repeats, always in the same order.

    `obj` is an object's name ("Brain", "mvtec/bottle") or anyone's own; a name without a block gets GENERIC.
    `prompts` is "base" (the ensemble), "llm" (the P-Prompts), "all" (both) or the path of a JSON file.
    `classname` replaces the words for `obj` in the ensemble, in GENERIC and in JSON files. Paper section: the
    P-Prompts. Raises InputError on any other `prompts`, a faulty file, a faulty block, or an empty result.
    """
    if str(prompts).lower().endswith(".json"):
        return read_json(prompts, words_for(obj, classname))
    normal, abnormal = composed(obj, prompts, classname)
    return _unique(normal), _unique(abnormal)


def words_for(obj: str, classname: str | None = None) -> str:
    """The words for `obj`: those given, or its own."""
    return (classname or "").strip() or class_name(obj)


def composed(obj: str, prompts: str = "all", classname: str | None = None) -> tuple[list[str], list[str]]:
    """`sentences` of this file's lists, repeats and all."""
    name = words_for(obj, classname)
    if prompts not in ("base", "llm", "all"):
        raise InputError(f"--prompts {prompts}: choose base, llm, all or the path of a .json file")
    normal, abnormal = [], []
    if prompts != "llm":
        normal += ensemble(NORMAL_STATES, name)
        abnormal += ensemble(ABNORMAL_STATES, name)
    if prompts != "base":
        p_prompts = _compose(obj, name)
        normal += p_prompts[0]
        abnormal += p_prompts[1]
    for label, texts in (("normal", normal), ("abnormal", abnormal)):
        if not texts:
            raise InputError(f"prompt.py: no {label} sentences for {obj}, --prompts {prompts}; fill its lists")
    return normal, abnormal


def read_json(path: str | Path, classname: str) -> tuple[list[str], list[str]]:
    """The (normal, abnormal) sentences of a prompt file, `{classname}` filled in, other braces as they are.

    The file is {"normal": {"prompts": [...]}, "abnormal": {"prompts": [...]}}; further keys are ignored.
    Raises InputError for a file that is missing, not JSON, or of another shape, and for an empty text.
    """
    filled = []
    for label, texts in zip(("normal", "abnormal"), written(path), strict=True):
        for number, text in enumerate(texts, start=1):
            if not text.strip():
                raise InputError(f'{path}: prompt {number} of "{label}" must be a text in quotes, not {text!r:.40}')
        filled.append(_unique([text.replace("{classname}", classname).strip() for text in texts]))
    return filled[0], filled[1]


def written(path: str | Path) -> tuple[list[str], list[str]]:
    """The two lists of a prompt file as they stand there: repeats, empty texts, place-holders and all.

    Raises InputError for a file that is missing, not JSON, or of another shape.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as fault:
        raise InputError(f"{path}: cannot be read ({fault.strerror}); check --prompts") from fault
    except (ValueError, RecursionError) as fault:
        raise InputError(f"{path}: not JSON in UTF-8 ({fault}); {SHAPE}") from fault
    return parse(content, path)


def parse(content: object, source: object) -> tuple[list[str], list[str]]:
    """The two lists in a prompt file's content; InputError, naming the `source`, for any other shape."""
    lists = []
    for label in ("normal", "abnormal"):
        part = content.get(label) if isinstance(content, dict) else None
        texts = part.get("prompts") if isinstance(part, dict) else None
        if not isinstance(texts, list) or not texts:
            what = "an empty list" if texts == [] else "no list"
            raise InputError(f'{source}: {what} of prompts under "{label}"; {SHAPE}')
        for number, text in enumerate(texts, start=1):
            if not isinstance(text, str) or _SURROGATE.search(text):
                what = f"a text in quotes, not {text!r:.40}"
                raise InputError(f'{source}: prompt {number} of "{label}" must be {what}')
        lists.append(texts)
    return lists[0], lists[1]


def to_json(normal: list[str], abnormal: list[str]) -> str:
    """The content of a prompt file."""
    content = {"normal": {"prompts": list(normal)}, "abnormal": {"prompts": list(abnormal)}}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def write_json(path: str | Path, normal: list[str], abnormal: list[str]) -> None:
    """Write a prompt file that `read_json` reads; `path` is replaced as a whole or not at all."""
    with atomic_write(path) as draft:
        draft.write_text(to_json(normal, abnormal), encoding="utf-8")


def digest(normal: list[str], abnormal: list[str]) -> str:
    """The hexadecimal SHA-256 of the sentences in their order, for a run's record."""
    return hashlib.sha256(json.dumps([list(normal), list(abnormal)]).encode()).hexdigest()


def ensemble(states: list[str], name: str, templates: list[str] | None = None) -> list[str]:
    """Every state of the object `name` in every template (None: TEMPLATES), one state after the other."""
    templates = TEMPLATES if templates is None else templates
    named = [state.replace("{}", name) for state in states]
    return [template.replace("{}", state) for state in named for template in templates]


def _compose(obj: str, name: str) -> tuple[list[str], list[str]]:
    """The P-Prompts (normal, abnormal): sign x view; finding x place, then overall x view.

    What is not multiplied out takes turns, at different strides so that no two wordings always meet. A line
    added at the end of `normal`, `findings`, `places` or `overall` leaves the other sentences as they were.
    """
    block = P_PROMPTS.get(obj, GENERIC)
    _check(obj, block)
    voice = VOICES[block.get("voice", "inspection")]
    views = [view.replace("{classname}", name) for view in block["views"]]
    adjectives = block.get("severity", voice["severity"])

    def wrong(finding: str, place: str, view: str, i: int, j: int) -> str:
        finding = finding.replace("{}", _turn(adjectives, 2 * i + 3 * j))
        return _sentence(_turn(voice["abnormal"], i + j), view=view, finding=finding, place=place)

    normal = [
        _sentence(_turn(voice["normal"], i + j), view=view, sign=sign)
        for i, sign in enumerate(block["normal"])
        for j, view in enumerate(views)
    ]
    placed = [
        wrong(finding, place, _turn(views, i + 2 * j), i, j)
        for i, finding in enumerate(block["findings"])
        for j, place in enumerate(block["places"])
    ]
    overall = [
        wrong(finding, "", view, i, j)
        for i, finding in enumerate(block.get("overall", []))
        for j, view in enumerate(views)
    ]
    return normal, placed + overall


def findings(obj: str, classname: str | None = None) -> dict[str, list[str]]:
    """What may be wrong with `obj`, each finding with the abnormal sentences that name it and nothing else: without an
    adjective of severity and without a place, once for every view. A name without a block gets GENERIC's.

    Raises InputError for a faulty block.
    """
    block, name = P_PROMPTS.get(obj, GENERIC), words_for(obj, classname)
    _check(obj, block)
    phrasings = VOICES[block.get("voice", "inspection")]["abnormal"]
    views = [view.replace("{classname}", name) for view in block["views"]]
    bare = _unique([_sentence(finding.replace("{}", "")).strip() for finding in block["findings"]])
    return {
        finding: [
            _sentence(_turn(phrasings, i + j), view=view, finding=finding, place="") for j, view in enumerate(views)
        ]
        for i, finding in enumerate(bare)
    }


def _check(obj: str, block: dict) -> None:
    """What an edit easily breaks: a list that is missing or misnamed, a text in place of a list, a voice."""
    where = f"prompt.py: the block of P-Prompts for {obj}"
    required = {"views", "normal", "findings", "places"}
    missing, unknown = required - block.keys(), block.keys() - required - {"voice", "overall", "severity"}
    if missing or unknown:
        what = f"has no {sorted(missing)[0]!r}" if missing else f"does not know {sorted(unknown)[0]!r}"
        raise InputError(f"{where} {what}; the keys are explained above P_PROMPTS")
    if block.get("voice", "inspection") not in VOICES:
        raise InputError(f"{where} has the voice {block['voice']!r}; choose {', '.join(VOICES)}")
    for key in block.keys() - {"voice"}:
        if not isinstance(block[key], list) or not all(isinstance(text, str) for text in block[key]):
            raise InputError(f"{where}: {key!r} must be a list of texts in quotes")
    if not block["views"]:
        raise InputError(f"{where}: 'views' is empty; give at least one")


def _turn(texts: list[str], number: int) -> str:
    """The texts in rotation; an empty text if there are none."""
    return texts[number % len(texts)] if texts else ""


# What "an" stands before: letters that sound as vowels (unlike "uniform", "one"), letters spelled out.
_VOWEL_SOUND = re.compile(r"(?!uni|use|usual|eu|one\b|U[A-Z-])[aeiouAEIOU]|hour|honest|(?:H&E|MRI?|X-ray)\b")
_ARTICLE = re.compile(r"\ban? (?=(\S+))")


def _sentence(phrase: str, **words: str) -> str:
    """A phrase with its slots filled, "a" or "an" by the next word, and no gap where a word is empty."""
    for slot, text in words.items():
        phrase = phrase.replace(f"{{{slot}}}", text)
    phrase = re.sub(r" +(?=[.,:;])", "", re.sub(r" {2,}", " ", phrase))
    return _ARTICLE.sub(lambda found: "an " if _VOWEL_SOUND.match(found[1]) else "a ", phrase)


def _unique(texts: list[str]) -> list[str]:
    """The texts without repeats, first come first."""
    return list(dict.fromkeys(texts))


if __name__ == "__main__":
    runpy.run_module("apps.prompts", run_name="__main__")  # by name: this file uses nothing above itself
