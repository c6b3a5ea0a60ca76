"""The 1,000 fonts of the FONTS prototypes, in order, as folder/file of the Google Fonts catalogue of 2015."""

FILES = """
wendyone/WendyOne-Regular.ttf opensanshebrew/OpenSansHebrew-ExtraBoldItalic.ttf
jomolhari/Jomolhari-alpha3c-0605331.ttf philosopher/Philosopher-Italic.ttf
palanquindark/PalanquinDark-SemiBold.ttf martelsans/MartelSans-Regular.ttf martelsans/MartelSans-SemiBold.ttf
cabincondensed/CabinCondensed-Regular.ttf tharlon/Tharlon-Regular.ttf doppioone/DoppioOne-Regular.ttf
sourcesanspro/SourceSansPro-ExtraLight.ttf puritan/Puritan-Regular.ttf
allertastencil/AllertaStencil-Regular.ttf opensanshebrew/OpenSansHebrew-LightItalic.ttf
playfairdisplaysc/PlayfairDisplaySC-BoldItalic.ttf encodesans/EncodeSans-Regular.ttf rufina/Rufina-Regular.ttf
averialibre/AveriaLibre-LightItalic.ttf alegreyasans/AlegreyaSans-Regular.ttf patuaone/PatuaOne-Regular.ttf
ubuntu/Ubuntu-Light.ttf antic/Antic-Regular.ttf overtherainbow/OvertheRainbow.ttf
cherryswash/CherrySwash-Regular.ttf thabit/Thabit-Bold.ttf imfelldoublepica/IMFeDPrm28P.ttf
jsmathcmr10/jsMath-cmr10.ttf trocchi/Trocchi-Regular.ttf satisfy/Satisfy-Regular.ttf alice/Alice-Regular.ttf
courgette/Courgette-Regular.ttf cabin/Cabin-Medium.ttf montserrat/Montserrat-Regular.ttf
cambay/Cambay-BoldItalic.ttf lemon/Lemon-Regular.ttf underdog/Underdog-Regular.ttf
berkshireswash/BerkshireSwash-Regular.ttf amaticsc/AmaticSC-Bold.ttf candal/Candal.ttf teko/Teko-Regular.ttf
raleway/Raleway-SemiBold.ttf amiri/Amiri-Regular.ttf seoulnamsancondensed/SeoulNamsanCondensed-ExtraBold.ttf
novaslim/NovaSlim.ttf lobstertwo/LobsterTwo-Bold.ttf dekko/Dekko-Regular.ttf alefhebrew/Alef-Bold.ttf
tradewinds/TradeWinds-Regular.ttf comfortaa/Comfortaa-Regular.ttf arapey/Arapey-Italic.ttf
opensanshebrew/OpenSansHebrew-ExtraBold.ttf opensans/OpenSans-ExtraBoldItalic.ttf exo2/Exo2-Medium.ttf
limelight/Limelight-Regular.ttf neuton/Neuton-Regular.ttf chivo/Chivo-BlackItalic.ttf play/Play-Bold.ttf
glegoo/Glegoo-Bold.ttf sourceserifpro/SourceSerifPro-Bold.ttf poly/Poly-Italic.ttf kenia/Kenia-Regular.ttf
alegreyasanssc/AlegreyaSansSC-Light.ttf roboto/Roboto-BoldItalic.ttf cuprum/Cuprum-Italic.ttf
bhavuka/Bhavuka-Regular.ttf titilliumweb/TitilliumWeb-Italic.ttf esteban/Esteban-Regular.ttf
kalam/Kalam-Regular.ttf neuton/Neuton-Light.ttf cabinsketch/CabinSketch-Bold.ttf
patrickhandsc/PatrickHandSC-Regular.ttf nunito/Nunito-Light.ttf julee/Julee-Regular.ttf mako/Mako-Regular.ttf
medulaone/MedulaOne-Regular.ttf milonga/Milonga-Regular.ttf
encodesanscondensed/EncodeSansCondensed-ExtraBold.ttf ubuntu/Ubuntu-Italic.ttf
yanonekaffeesatz/YanoneKaffeesatz-ExtraLight.ttf halant/Halant-Light.ttf lato/Lato-Regular.ttf
bentham/Bentham-Regular.ttf bitter/Bitter-Bold.ttf shanti/Shanti-Regular.ttf karma/Karma-Bold.ttf
quattrocentosans/QuattrocentoSans-BoldItalic.ttf teko/Teko-Light.ttf strong/Strong-Regular.ttf
inknutantiqua/InknutAntiqua-ExtraBold.ttf buda/Buda-Light.ttf kronaone/KronaOne-Regular.ttf
vibur/Vibur-Regular.ttf robotocondensed/RobotoCondensed-Bold.ttf imfellenglishsc/IMFeENsc28P.ttf
orienta/Orienta-Regular.ttf unicaone/UnicaOne-Regular.ttf raleway/Raleway-Italic.ttf
opensanshebrew/OpenSansHebrew-Bold.ttf ptsans/PT_Sans-Web-Regular.ttf cabincondensed/CabinCondensed-Bold.ttf
exo2/Exo2-SemiBold.ttf ubuntucondensed/UbuntuCondensed-Regular.ttf exo/Exo-Bold.ttf geo/Geo-Oblique.ttf
chauphilomeneone/ChauPhilomeneOne-Regular.ttf teko/Teko-SemiBold.ttf
oleoscriptswashcaps/OleoScriptSwashCaps-Regular.ttf josefinsans/JosefinSans-LightItalic.ttf
ledger/Ledger-Regular.ttf alefhebrew/Alef-Regular.ttf palanquindark/PalanquinDark-Medium.ttf
opensans/OpenSans-Light.ttf averialibre/AveriaLibre-BoldItalic.ttf
macondoswashcaps/MacondoSwashCaps-Regular.ttf sedan/Sedan-Italic.ttf raleway/Raleway-ThinItalic.ttf
imfellenglish/IMFeENrm28P.ttf encodesanscondensed/EncodeSansCondensed-Regular.ttf
anonymouspro/AnonymousPro-Regular.ttf sortsmillgoudy/SortsMillGoudy-Regular.ttf nobile/Nobile-Regular.ttf
raleway/Raleway-SemiBoldItalic.ttf exo/Exo-Regular.ttf oldstandardtt/OldStandard-Bold.ttf
strait/Strait-Regular.ttf titilliumweb/TitilliumWeb-SemiBoldItalic.ttf passeroone/PasseroOne-Regular.ttf
arvo/Arvo-Italic.ttf kellyslab/KellySlab-Regular.ttf gruppo/Gruppo-Regular.ttf robotoslab/RobotoSlab-Bold.ttf
ekmukta/EkMukta-ExtraLight.ttf rammettoone/RammettoOne-Regular.ttf spirax/Spirax-Regular.ttf
quantico/Quantico-Bold.ttf firasans/FiraSans-LightItalic.ttf gentiumbookbasic/GenBkBasBI.ttf
hennypenny/HennyPenny-Regular.ttf alegreyasanssc/AlegreyaSansSC-Medium.ttf
archivonarrow/ArchivoNarrow-Italic.ttf yellowtail/Yellowtail-Regular.ttf amaranth/Amaranth-Regular.ttf
muli/Muli-Light.ttf expletussans/ExpletusSans-Regular.ttf economica/Economica-Regular.ttf
titanone/TitanOne-Regular.ttf josefinslab/JosefinSlab-Italic.ttf galdeano/Galdeano-Regular.ttf
martelsans/MartelSans-ExtraLight.ttf crimsontext/CrimsonText-Italic.ttf meriendaone/MeriendaOne-Regular.ttf
slabo27px/Slabo27px-Regular.ttf oflsortsmillgoudytt/OFLGoudyStMTT-Italic.ttf tillana/Tillana-Bold.ttf
benchnine/BenchNine-Bold.ttf playfairdisplaysc/PlayfairDisplaySC-Black.ttf
sourcesanspro/SourceSansPro-BoldItalic.ttf playfairdisplay/PlayfairDisplay-Regular.ttf
playfairdisplaysc/PlayfairDisplaySC-BlackItalic.ttf vesperlibre/VesperLibre-Heavy.ttf
flamenco/Flamenco-Light.ttf magra/Magra-Regular.ttf racingsansone/RacingSansOne-Regular.ttf
opensanshebrewcondensed/OpenSansHebrewCondensed-BoldItalic.ttf averiasanslibre/AveriaSansLibre-LightItalic.ttf
rosario/Rosario-Italic.ttf oxygen/Oxygen-Light.ttf changaone/ChangaOne-Regular.ttf chivo/Chivo-Italic.ttf
volkhov/Volkhov-Regular.ttf roboto/Roboto-Bold.ttf exo2/Exo2-BoldItalic.ttf zeyada/Zeyada.ttf
oswald/Oswald-Bold.ttf thabit/Thabit.ttf adventpro/AdventPro-Bold.ttf imprima/Imprima-Regular.ttf
glassantiqua/GlassAntiqua-Regular.ttf alegreya/Alegreya-BoldItalic.ttf expletussans/ExpletusSans-SemiBold.ttf
averiaseriflibre/AveriaSerifLibre-Regular.ttf raleway/Raleway-Light.ttf
goudybookletter1911/GoudyBookletter1911.ttf sourcecodepro/SourceCodePro-ExtraLight.ttf carme/Carme-Regular.ttf
marvel/Marvel-Italic.ttf loveyalikeasister/LoveYaLikeASister.ttf merriweather/Merriweather-BoldItalic.ttf
titilliumweb/TitilliumWeb-SemiBold.ttf questrial/Questrial-Regular.ttf orbitron/Orbitron-Bold.ttf
qwigley/Qwigley-Regular.ttf encodesans/EncodeSans-Medium.ttf ekmukta/EkMukta-Regular.ttf sail/Sail-Regular.ttf
skranji/Skranji-Regular.ttf gentiumbasic/GenBasI.ttf handlee/Handlee-Regular.ttf dosis/Dosis-ExtraLight.ttf
salsa/Salsa-Regular.ttf gfsneohellenic/GFSNeohellenicBold.ttf ubuntumono/UbuntuMono-Italic.ttf
lato/Lato-Light.ttf copse/Copse-Regular.ttf galindo/Galindo-Regular.ttf tillana/Tillana-SemiBold.ttf
happymonkey/HappyMonkey-Regular.ttf pompiere/Pompiere-Regular.ttf arbutusslab/ArbutusSlab-Regular.ttf
syncopate/Syncopate-Bold.ttf alegreya/Alegreya-BlackItalic.ttf elsieswashcaps/ElsieSwashCaps-Black.ttf
sarala/Sarala-Regular.ttf gfsdidot/GFSDidot-Regular.ttf terminaldosis/TerminalDosis-Light.ttf
montserrat/Montserrat-Black.ttf glegoo/Glegoo-Regular.ttf padauk/Padauk-Bold.ttf
averiasanslibre/AveriaSansLibre-BoldItalic.ttf lusitana/Lusitana-Bold.ttf smythe/Smythe-Regular.ttf
almendra/Almendra-Italic.ttf averiaseriflibre/AveriaSerifLibre-LightItalic.ttf exo2/Exo2-ExtraBoldItalic.ttf
simonetta/Simonetta-Black.ttf averiasanslibre/AveriaSansLibre-Italic.ttf spinnaker/Spinnaker-Regular.ttf
fredokaone/FredokaOne-Regular.ttf dhurjati/Dhurjati-Regular.ttf capriola/Capriola-Regular.ttf
alegreyasanssc/AlegreyaSansSC-Black.ttf ubuntumono/UbuntuMono-BoldItalic.ttf stoke/Stoke-Regular.ttf
butchermancaps/ButchermanCaps-Regular.ttf khand/Khand-Bold.ttf lustria/Lustria-Regular.ttf
sarala/Sarala-Bold.ttf anonymouspro/AnonymousPro-Bold.ttf sarpanch/Sarpanch-Bold.ttf
archivonarrow/ArchivoNarrow-BoldItalic.ttf raleway/Raleway-Regular.ttf ranga/Ranga-Bold.ttf
averialibre/AveriaLibre-Italic.ttf overlock/Overlock-Bold.ttf titilliumweb/TitilliumWeb-ExtraLightItalic.ttf
lifesavers/LifeSavers-Bold.ttf timmana/Timmana-Regular.ttf noticiatext/NoticiaText-Bold.ttf
istokweb/IstokWeb-BoldItalic.ttf caudex/Caudex-Italic.ttf marvel/Marvel-Regular.ttf novaoval/NovaOval.ttf
alegreyasanssc/AlegreyaSansSC-MediumItalic.ttf carroisgothic/CarroisGothic-Regular.ttf
ptsanscaption/PT_Sans-Caption-Web-Regular.ttf chauphilomeneone/ChauPhilomeneOne-Italic.ttf
sourcecodepro/SourceCodePro-Black.ttf metalmania/MetalMania-Regular.ttf lateef/LateefRegOT.ttf
bilbo/Bilbo-Regular.ttf asul/Asul-Regular.ttf exo/Exo-Black.ttf vesperlibre/VesperLibre-Regular.ttf
alegreyasc/AlegreyaSC-Regular.ttf varelaround/VarelaRound-Regular.ttf
alegreyasanssc/AlegreyaSansSC-ExtraBold.ttf nobile/Nobile-Italic.ttf tuffy/Tuffy-BoldItalic.ttf
fingerpaint/FingerPaint-Regular.ttf merriweathersans/MerriweatherSans-Bold.ttf
marcellussc/MarcellusSC-Regular.ttf nanumgothic/NanumGothic-ExtraBold.ttf chelaone/ChelaOne-Regular.ttf
yesevaone/YesevaOne-Regular.ttf gfsneohellenic/GFSNeohellenic.ttf oregano/Oregano-Regular.ttf
portlligatsans/PortLligatSans-Regular.ttf opensans/OpenSans-BoldItalic.ttf
robotocondensed/RobotoCondensed-Regular.ttf montserrat/Montserrat-Thin.ttf nobile/Nobile-BoldItalic.ttf
anticdidone/AnticDidone-Regular.ttf palanquin/Palanquin-Bold.ttf averialibre/AveriaLibre-Light.ttf
sofadione/SofadiOne-Regular.ttf domine/Domine-Regular.ttf brawler/Brawler-Regular.ttf
alegreyasans/AlegreyaSans-Italic.ttf neuton/Neuton-Italic.ttf poly/Poly-Regular.ttf exo2/Exo2-Thin.ttf
badscript/BadScript-Regular.ttf opensanshebrew/OpenSansHebrew-Regular.ttf pontanosans/PontanoSans-Regular.ttf
jaldi/Jaldi-Bold.ttf kaushanscript/KaushanScript-Regular.ttf shadowsintolight/ShadowsIntoLight.ttf
sarabun/Sarabun-Bold.ttf delius/Delius-Regular.ttf alegreyasanssc/AlegreyaSansSC-Italic.ttf
nanumgothic/NanumGothic-Regular.ttf pirataone/PirataOne-Regular.ttf imfellfrenchcanonsc/IMFeFCsc28P.ttf
imfelldwpica/IMFePIrm28P.ttf alikeangular/AlikeAngular-Regular.ttf exo/Exo-Thin.ttf
josefinslab/JosefinSlab-Regular.ttf josefinslab/JosefinSlab-SemiBoldItalic.ttf oxygen/Oxygen-Bold.ttf
piedra/Piedra-Regular.ttf eczar/Eczar-Medium.ttf cousine/Cousine-Bold.ttf convergence/Convergence-Regular.ttf
cutive/Cutive-Regular.ttf sansation/Sansation-LightItalic.ttf encodesans/EncodeSans-Thin.ttf
ramaraja/Ramaraja-Regular.ttf terminaldosis/TerminalDosis-Regular.ttf
merriweathersans/MerriweatherSans-Light.ttf philosopher/Philosopher-BoldItalic.ttf
overlocksc/OverlockSC-Regular.ttf ntr/NTR-Regular.ttf baumans/Baumans-Regular.ttf jura/Jura-Light.ttf
montserratsubrayada/MontserratSubrayada-Regular.ttf margarine/Margarine-Regular.ttf exo2/Exo2-Black.ttf
encodesanscondensed/EncodeSansCondensed-Thin.ttf ribeyemarrow/RibeyeMarrow-Regular.ttf
ptserifcaption/PT_Serif-Caption-Web-Italic.ttf exo/Exo-BoldItalic.ttf sansation/Sansation-Italic.ttf
raleway/Raleway-ExtraBold.ttf rambla/Rambla-Italic.ttf karma/Karma-Light.ttf sarpanch/Sarpanch-Black.ttf
cinzel/Cinzel-Bold.ttf germaniaone/GermaniaOne-Regular.ttf thabit/Thabit-BoldOblique.ttf magra/Magra-Bold.ttf
artifika/Artifika-Regular.ttf tuffy/Tuffy-Regular.ttf martelsans/MartelSans-Bold.ttf matesc/MateSC-Regular.ttf
robotoslab/RobotoSlab-Regular.ttf opensanshebrewcondensed/OpenSansHebrewCondensed-Italic.ttf
creteround/CreteRound-Italic.ttf damion/Damion-Regular.ttf arvo/Arvo-Bold.ttf buenard/Buenard-Regular.ttf
emblemaone/EmblemaOne-Regular.ttf newscycle/NewsCycle-Regular.ttf fanwoodtext/FanwoodText-Regular.ttf
alegreyasanssc/AlegreyaSansSC-BoldItalic.ttf fjordone/FjordOne-Regular.ttf roboto/Roboto-MediumItalic.ttf
istokweb/IstokWeb-Regular.ttf rokkitt/Rokkitt-Light.ttf rajdhani/Rajdhani-Regular.ttf
sueellenfrancisco/SueEllenFrancisco.ttf armata/Armata-Regular.ttf rochester/Rochester-Regular.ttf
trochut/Trochut-Bold.ttf halant/Halant-Regular.ttf simonetta/Simonetta-BlackItalic.ttf
seaweedscript/SeaweedScript-Regular.ttf imfellgreatprimersc/IMFeGPsc28P.ttf nanumgothic/NanumGothic-Bold.ttf
sedan/Sedan-Regular.ttf archivonarrow/ArchivoNarrow-Regular.ttf mandali/Mandali-Regular.ttf
raleway/Raleway-ExtraLightItalic.ttf sniglet/Sniglet-ExtraBold.ttf monda/Monda-Regular.ttf lora/Lora-Bold.ttf
oldstandardtt/OldStandard-Regular.ttf librebaskerville/LibreBaskerville-Italic.ttf
sancreek/Sancreek-Regular.ttf englebert/Englebert-Regular.ttf roboto/Roboto-Medium.ttf
josefinsans/JosefinSans-SemiBoldItalic.ttf oregano/Oregano-Italic.ttf titilliumweb/TitilliumWeb-BoldItalic.ttf
rye/Rye-Regular.ttf josefinsans/JosefinSans-SemiBold.ttf philosopher/Philosopher-Bold.ttf
textmeone/TextMeOne-Regular.ttf caudex/Caudex-Regular.ttf thabit/Thabit-Oblique.ttf
sedansc/SedanSC-Regular.ttf radley/Radley-Regular.ttf exo/Exo-LightItalic.ttf almendra/Almendra-Bold.ttf
sarpanch/Sarpanch-Medium.ttf telex/Telex-Regular.ttf opensans/OpenSans-Bold.ttf montserrat/Montserrat-Bold.ttf
marvel/Marvel-Bold.ttf lindenhill/LindenHill-Regular.ttf terminaldosis/TerminalDosis-Medium.ttf
josefinslab/JosefinSlab-Thin.ttf josefinslab/JosefinSlab-Light.ttf raleway/Raleway-MediumItalic.ttf
uncialantiqua/UncialAntiqua-Regular.ttf ruda/Ruda-Bold.ttf tulpenone/TulpenOne-Regular.ttf
fascinateinline/FascinateInline-Regular.ttf ptserif/PT_Serif-Web-Italic.ttf drsugiyama/DrSugiyama-Regular.ttf
allerta/Allerta-Regular.ttf lifesavers/LifeSavers-ExtraBold.ttf kalam/Kalam-Light.ttf arvo/Arvo-Regular.ttf
muli/Muli-LightItalic.ttf play/Play-Regular.ttf bigelowrules/BigelowRules-Regular.ttf muli/Muli-Italic.ttf
cantarell/Cantarell-Regular.ttf quantico/Quantico-Regular.ttf encodesans/EncodeSans-Bold.ttf
andadasc/AndadaSC-Regular.ttf inder/Inder-Regular.ttf vollkorn/Vollkorn-Regular.ttf
lobstertwo/LobsterTwo-Regular.ttf exo2/Exo2-MediumItalic.ttf opensans/OpenSans-LightItalic.ttf
roboto/Roboto-Light.ttf wireone/WireOne.ttf alegreyasc/AlegreyaSC-Italic.ttf flamenco/Flamenco-Regular.ttf
amethysta/Amethysta-Regular.ttf simonetta/Simonetta-Italic.ttf sixcaps/SixCaps.ttf
deliusunicase/DeliusUnicase-Regular.ttf atomicage/AtomicAge-Regular.ttf
robotocondensed/RobotoCondensed-LightItalic.ttf balthazar/Balthazar-Regular.ttf tienne/Tienne-Bold.ttf
raleway/Raleway-ExtraBoldItalic.ttf righteous/Righteous-Regular.ttf lifesavers/LifeSavers-Regular.ttf
juliussansone/JuliusSansOne-Regular.ttf voltaire/Voltaire-Regular.ttf exo/Exo-Italic.ttf
nunito/Nunito-Regular.ttf amaranth/Amaranth-Bold.ttf gentiumbasic/GenBasB.ttf fondamento/Fondamento-Italic.ttf
coda/Coda-Regular.ttf inknutantiqua/InknutAntiqua-SemiBold.ttf gentiumbasic/GenBasR.ttf
cousine/Cousine-Regular.ttf shojumaru/Shojumaru-Regular.ttf exo/Exo-MediumItalic.ttf
daysone/DaysOne-Regular.ttf jura/Jura-Regular.ttf knewave/Knewave-Regular.ttf
robotocondensed/RobotoCondensed-Light.ttf quicksand/Quicksand-Regular.ttf arbutus/Arbutus-Regular.ttf
sourcecodepro/SourceCodePro-Medium.ttf nanummyeongjo/NanumMyeongjo-Bold.ttf
alegreyasans/AlegreyaSans-LightItalic.ttf rufina/Rufina-Bold.ttf radley/Radley-Italic.ttf allan/Allan-Bold.ttf
creepstercaps/CreepsterCaps-Regular.ttf allan/Allan-Regular.ttf merriweather/Merriweather-Regular.ttf
khula/Khula-Light.ttf laila/Laila-Bold.ttf kreon/Kreon-Bold.ttf laila/Laila-Regular.ttf
eater/Eater-Regular.ttf sourcesanspro/SourceSansPro-Bold.ttf nosifer/Nosifer-Regular.ttf
donegalone/DonegalOne-Regular.ttf gentiumbasic/GenBasBI.ttf federo/Federo-Regular.ttf
encodesans/EncodeSans-ExtraBold.ttf ericaone/EricaOne-Regular.ttf mrdafoe/MrDafoe-Regular.ttf
prostoone/ProstoOne-Regular.ttf nanummyeongjo/NanumMyeongjo-Regular.ttf overlock/Overlock-Regular.ttf
ranga/Ranga-Regular.ttf josefinslab/JosefinSlab-ThinItalic.ttf andada/Andada-Regular.ttf
ekmukta/EkMukta-Medium.ttf signikanegative/SignikaNegative-Bold.ttf alegreyasans/AlegreyaSans-BoldItalic.ttf
titilliumweb/TitilliumWeb-LightItalic.ttf signikanegative/SignikaNegative-Light.ttf
syncopate/Syncopate-Regular.ttf playfairdisplay/PlayfairDisplay-BlackItalic.ttf
miltoniantattoo/MiltonianTattoo-Regular.ttf cousine/Cousine-Italic.ttf hind/Hind-Light.ttf
palanquindark/PalanquinDark-Bold.ttf alegreyasanssc/AlegreyaSansSC-Thin.ttf
yanonekaffeesatz/YanoneKaffeesatz-Regular.ttf petitformalscript/PetitFormalScript-Regular.ttf
mousememoirs/MouseMemoirs-Regular.ttf ubuntu/Ubuntu-BoldItalic.ttf lato/Lato-Black.ttf cambay/Cambay-Bold.ttf
terminaldosis/TerminalDosis-ExtraBold.ttf josefinslab/JosefinSlab-SemiBold.ttf jsmathcmti10/jsMath-cmti10.ttf
lora/Lora-Italic.ttf fenix/Fenix-Regular.ttf josefinsans/JosefinSans-ThinItalic.ttf
yanonekaffeesatz/YanoneKaffeesatz-Bold.ttf ptsansnarrow/PT_Sans-Narrow-Web-Bold.ttf exo/Exo-SemiBoldItalic.ttf
expletussans/ExpletusSans-Bold.ttf ovo/Ovo-Regular.ttf merriweathersans/MerriweatherSans-BoldItalic.ttf
teko/Teko-Medium.ttf ptmono/PTM55FT.ttf overlock/Overlock-BlackItalic.ttf kiteone/KiteOne-Regular.ttf
sharetech/ShareTech-Regular.ttf andadasc/AndadaSC-Bold.ttf rokkitt/Rokkitt-Bold.ttf
adventpro/AdventPro-SemiBold.ttf bubblerone/BubblerOne-Regular.ttf rancho/Rancho-Regular.ttf
peddana/Peddana-Regular.ttf fjallaone/FjallaOne-Regular.ttf poiretone/PoiretOne-Regular.ttf
noticiatext/NoticiaText-Italic.ttf rubikmonoone/RubikMonoOne-Regular.ttf exo/Exo-Light.ttf
arimo/Arimo-Italic.ttf squadaone/SquadaOne-Regular.ttf lobster/Lobster-Regular.ttf
overlock/Overlock-BoldItalic.ttf merienda/Merienda-Bold.ttf roboto/Roboto-Italic.ttf
stintultracondensed/StintUltraCondensed-Regular.ttf notoserif/NotoSerif-Regular.ttf share/Share-Italic.ttf
rosario/Rosario-Regular.ttf librebaskerville/LibreBaskerville-Regular.ttf iceland/Iceland-Regular.ttf
paprika/Paprika-Regular.ttf tinos/Tinos-Italic.ttf ruslandisplay/RuslanDisplay.ttf judson/Judson-Bold.ttf
jsmathcmbx10/jsMath-cmbx10.ttf audiowide/Audiowide-Regular.ttf sourcesanspro/SourceSansPro-LightItalic.ttf
josefinsans/JosefinSans-Italic.ttf rosarivo/Rosarivo-Italic.ttf imfellgreatprimer/IMFeGPrm28P.ttf
hind/Hind-Medium.ttf tuffy/Tuffy-Italic.ttf tillana/Tillana-Medium.ttf expletussans/ExpletusSans-Medium.ttf
ekmukta/EkMukta-Bold.ttf rajdhani/Rajdhani-Medium.ttf originalsurfer/OriginalSurfer-Regular.ttf
titilliumweb/TitilliumWeb-Bold.ttf anonymouspro/AnonymousPro-BoldItalic.ttf sniglet/Sniglet-Regular.ttf
signika/Signika-Light.ttf eczar/Eczar-Regular.ttf mavenpro/MavenPro-Medium.ttf
waitingforthesunrise/WaitingfortheSunrise.ttf snowburstone/SnowburstOne-Regular.ttf share/Share-Bold.ttf
averiagruesalibre/AveriaGruesaLibre-Regular.ttf merriweather/Merriweather-Black.ttf
plaster/Plaster-Regular.ttf coustard/Coustard-Black.ttf federant/Federant-Regular.ttf
keaniaone/KeaniaOne-Regular.ttf frijole/Frijole-Regular.ttf adventpro/AdventPro-Thin.ttf
poppins/Poppins-Regular.ttf changa/Changa-Regular.ttf inknutantiqua/InknutAntiqua-Black.ttf
concertone/ConcertOne-Regular.ttf mountainsofchristmas/MountainsofChristmas-Bold.ttf
opensans/OpenSans-ExtraBold.ttf orbitron/Orbitron-Black.ttf padauk/Padauk-Regular.ttf
palanquin/Palanquin-Thin.ttf novaround/NovaRound.ttf elsie/Elsie-Regular.ttf tuffy/Tuffy-Bold.ttf
purplepurse/PurplePurse-Regular.ttf cagliostro/Cagliostro-Regular.ttf kreon/Kreon-Light.ttf
gorditas/Gorditas-Bold.ttf alegreyasans/AlegreyaSans-Thin.ttf viga/Viga-Regular.ttf
encodesans/EncodeSans-SemiBold.ttf exo2/Exo2-ExtraLightItalic.ttf jura/Jura-Medium.ttf
volkhov/Volkhov-BoldItalic.ttf andadasc/AndadaSC-BoldItalic.ttf benchnine/BenchNine-Light.ttf
poppins/Poppins-SemiBold.ttf mallanna/Mallanna-Regular.ttf lato/Lato-LightItalic.ttf
robotocondensed/RobotoCondensed-Italic.ttf averagesans/AverageSans-Regular.ttf griffy/Griffy-Regular.ttf
passionone/PassionOne-Regular.ttf numans/Numans-Regular.ttf sourcesanspro/SourceSansPro-ExtraLightItalic.ttf
hanaleifill/HanaleiFill-Regular.ttf aladin/Aladin-Regular.ttf ropasans/RopaSans-Regular.ttf
rosario/Rosario-BoldItalic.ttf pollerone/PollerOne.ttf arimo/Arimo-BoldItalic.ttf akronim/Akronim-Regular.ttf
bubblegumsans/BubblegumSans-Regular.ttf lobstertwo/LobsterTwo-BoldItalic.ttf josefinsans/JosefinSans-Light.ttf
crimsontext/CrimsonText-BoldItalic.ttf raleway/Raleway-Black.ttf sirinstencil/SirinStencil-Regular.ttf
kameron/Kameron-Regular.ttf graduate/Graduate-Regular.ttf merriweather/Merriweather-LightItalic.ttf
merriweathersans/MerriweatherSans-LightItalic.ttf sourcecodepro/SourceCodePro-Regular.ttf
sreekrushnadevaraya/SreeKrushnadevaraya-Regular.ttf share/Share-BoldItalic.ttf encodesans/EncodeSans-Light.ttf
jimnightshade/JimNightshade-Regular.ttf titilliumweb/TitilliumWeb-Regular.ttf
librecaslontext/LibreCaslonText-Regular.ttf clickerscript/ClickerScript-Regular.ttf hanna/BM-HANNA.ttf
opensanshebrewcondensed/OpenSansHebrewCondensed-Bold.ttf cuprum/Cuprum-Regular.ttf
imfellgreatprimer/IMFeGPit28P.ttf asap/Asap-Regular.ttf italianno/Italianno-Regular.ttf
faunaone/FaunaOne-Regular.ttf ubuntumono/UbuntuMono-Bold.ttf sarpanch/Sarpanch-ExtraBold.ttf
novamono/NovaMono.ttf rokkitt/Rokkitt-Regular.ttf mavenpro/MavenPro-Black.ttf
expletussans/ExpletusSans-BoldItalic.ttf encodesanscondensed/EncodeSansCondensed-Bold.ttf
montserratalternates/MontserratAlternates-Bold.ttf giveyouglory/GiveYouGlory.ttf markoone/MarkoOne-Regular.ttf
nixieone/NixieOne-Regular.ttf ubuntu/Ubuntu-Regular.ttf khula/Khula-Regular.ttf amarante/Amarante-Regular.ttf
cabin/Cabin-Italic.ttf dorsa/Dorsa-Regular.ttf thegirlnextdoor/TheGirlNextDoor.ttf habibi/Habibi-Regular.ttf
nobile/Nobile-Bold.ttf suravaram/Suravaram-Regular.ttf cantarell/Cantarell-Oblique.ttf
antonio/Antonio-Bold.ttf molengo/Molengo-Regular.ttf cevicheone/CevicheOne-Regular.ttf gudea/Gudea-Bold.ttf
cabin/Cabin-BoldItalic.ttf nanumpenscript/NanumPenScript-Regular.ttf imfelldwpicasc/IMFePIsc28P.ttf
tenaliramakrishna/TenaliRamakrishna-Regular.ttf lekton/Lekton-Italic.ttf cardo/Cardo-Regular.ttf
ubuntu/Ubuntu-Bold.ttf merriweathersans/MerriweatherSans-Regular.ttf mclaren/McLaren-Regular.ttf
patrickhand/PatrickHand-Regular.ttf sarabun/Sarabun-BoldItalic.ttf asap/Asap-Italic.ttf
creepster/Creepster-Regular.ttf varela/Varela-Regular.ttf istokweb/IstokWeb-Bold.ttf cuprum/Cuprum-Bold.ttf
aldrich/Aldrich-Regular.ttf mountainsofchristmas/MountainsofChristmas-Regular.ttf
sarpanch/Sarpanch-SemiBold.ttf exo/Exo-SemiBold.ttf averiaseriflibre/AveriaSerifLibre-BoldItalic.ttf
ubuntu/Ubuntu-Medium.ttf imfelldoublepicasc/IMFeDPsc28P.ttf croissantone/CroissantOne-Regular.ttf
quattrocentosans/QuattrocentoSans-Bold.ttf cinzel/Cinzel-Black.ttf alegreyasc/AlegreyaSC-Bold.ttf
hammersmithone/HammersmithOne-Regular.ttf alegreyasc/AlegreyaSC-BlackItalic.ttf
economica/Economica-BoldItalic.ttf jaldi/Jaldi-Regular.ttf iceberg/Iceberg-Regular.ttf
ubuntu/Ubuntu-LightItalic.ttf chivo/Chivo-Black.ttf caudex/Caudex-Bold.ttf rugeboogie/RugeBoogie-Regular.ttf
sanchez/Sanchez-Regular.ttf lilyscriptone/LilyScriptOne-Regular.ttf alegreya/Alegreya-Regular.ttf
palanquindark/PalanquinDark-Regular.ttf puritan/Puritan-Bold.ttf robotoslab/RobotoSlab-Thin.ttf
breeserif/BreeSerif-Regular.ttf palanquin/Palanquin-Medium.ttf exo2/Exo2-Light.ttf denkone/DenkOne-Regular.ttf
medievalsharp/MedievalSharp.ttf mrssheppards/MrsSheppards-Regular.ttf quantico/Quantico-Italic.ttf
metamorphous/Metamorphous-Regular.ttf molle/Molle-Regular.ttf alegreyasc/AlegreyaSC-Black.ttf
raleway/Raleway-Thin.ttf karla/Karla-Regular.ttf nanumgothiccoding/NanumGothicCoding-Regular.ttf
alegreya/Alegreya-Bold.ttf freckleface/FreckleFace-Regular.ttf kameron/Kameron-Bold.ttf
sansation/Sansation-Light.ttf stalinistone/StalinistOne-Regular.ttf jsmathcmmi10/jsMath-cmmi10.ttf
actor/Actor-Regular.ttf comfortaa/Comfortaa-Bold.ttf cabinsketch/CabinSketch-Regular.ttf
pressstart2p/PressStart2P-Regular.ttf exo2/Exo2-LightItalic.ttf raviprakash/RaviPrakash-Regular.ttf
tinos/Tinos-Bold.ttf abel/Abel-Regular.ttf acme/Acme-Regular.ttf vastshadow/VastShadow-Regular.ttf
portlligatslab/PortLligatSlab-Regular.ttf unkempt/Unkempt-Regular.ttf josefinsans/JosefinSans-BoldItalic.ttf
rambla/Rambla-Bold.ttf alegreyasans/AlegreyaSans-ThinItalic.ttf junge/Junge-Regular.ttf
trochut/Trochut-Regular.ttf asap/Asap-Bold.ttf russoone/RussoOne-Regular.ttf cabin/Cabin-MediumItalic.ttf
jacquesfrancois/JacquesFrancois-Regular.ttf contrailone/ContrailOne-Regular.ttf andadasc/AndadaSC-Italic.ttf
opensanshebrew/OpenSansHebrew-Italic.ttf dinah/Dinah-Bold.ttf ruda/Ruda-Regular.ttf novaflat/NovaFlat.ttf
merriweather/Merriweather-Italic.ttf oldstandardtt/OldStandard-Italic.ttf merriweather/Merriweather-Light.ttf
seoulnamsancondensed/SeoulNamsanCondensed-Black.ttf playfairdisplay/PlayfairDisplay-Black.ttf
ekmukta/EkMukta-SemiBold.ttf scada/Scada-Bold.ttf
opensanshebrewcondensed/OpenSansHebrewCondensed-LightItalic.ttf gfsneohellenic/GFSNeohellenicBoldItalic.ttf
cinzeldecorative/CinzelDecorative-Black.ttf josefinsans/JosefinSans-Thin.ttf
opensanshebrewcondensed/OpenSansHebrewCondensed-Light.ttf arapey/Arapey-Regular.ttf vt323/VT323-Regular.ttf
fondamento/Fondamento-Regular.ttf ptsans/PT_Sans-Web-BoldItalic.ttf
encodesanscondensed/EncodeSansCondensed-ExtraLight.ttf quicksand/Quicksand-Bold.ttf
headlandone/HeadlandOne-Regular.ttf notosans/NotoSans-Bold.ttf felipa/Felipa-Regular.ttf
nunito/Nunito-Bold.ttf raleway/Raleway-BoldItalic.ttf expletussans/ExpletusSans-SemiBoldItalic.ttf
sintony/Sintony-Bold.ttf novacut/NovaCut.ttf unlock/Unlock-Regular.ttf ekmukta/EkMukta-ExtraBold.ttf
cuprum/Cuprum-BoldItalic.ttf rambla/Rambla-Regular.ttf macondo/Macondo-Regular.ttf kreon/Kreon-Regular.ttf
nanumbrushscript/NanumBrushScript-Regular.ttf inconsolata/Inconsolata-Bold.ttf exo2/Exo2-BlackItalic.ttf
playball/Playball-Regular.ttf muli/Muli-Regular.ttf robotoslab/RobotoSlab-Light.ttf
alexbrush/AlexBrush-Regular.ttf josefinsansstdlight/JosefinSansStd-Light.ttf alike/Alike-Regular.ttf
cantarell/Cantarell-Bold.ttf sonsieone/SonsieOne-Regular.ttf mavenpro/MavenPro-Regular.ttf
averiasanslibre/AveriaSansLibre-Regular.ttf roboto/Roboto-Thin.ttf chango/Chango-Regular.ttf
gloriahallelujah/GloriaHallelujah.ttf share/Share-Regular.ttf rajdhani/Rajdhani-Light.ttf
sanchez/Sanchez-Italic.ttf poetsenone/PoetsenOne-Regular.ttf pathwaygothicone/PathwayGothicOne-Regular.ttf
lindenhill/LindenHill-Italic.ttf rajdhani/Rajdhani-SemiBold.ttf ramabhadra/Ramabhadra-Regular.ttf
megrim/Megrim.ttf fascinate/Fascinate-Regular.ttf changaone/ChangaOne-Italic.ttf
sourcesanspro/SourceSansPro-Regular.ttf oranienbaum/Oranienbaum-Regular.ttf flavors/Flavors-Regular.ttf
averiaseriflibre/AveriaSerifLibre-Italic.ttf opensanshebrewcondensed/OpenSansHebrewCondensed-Regular.ttf
overlock/Overlock-Italic.ttf corben/Corben-Bold.ttf holtwoodonesc/HoltwoodOneSC.ttf
calligraffitti/Calligraffitti-Regular.ttf yanonekaffeesatz/YanoneKaffeesatz-Light.ttf
notoserif/NotoSerif-BoldItalic.ttf peralta/Peralta-Regular.ttf adamina/Adamina-Regular.ttf
librebaskerville/LibreBaskerville-Bold.ttf lato/Lato-Bold.ttf alegreyasans/AlegreyaSans-Black.ttf
cambay/Cambay-Regular.ttf exo/Exo-ExtraBold.ttf raleway/Raleway-Bold.ttf economica/Economica-Italic.ttf
simonetta/Simonetta-Regular.ttf ptsansnarrow/PT_Sans-Narrow-Web-Regular.ttf exo/Exo-ExtraBoldItalic.ttf
robotocondensed/RobotoCondensed-BoldItalic.ttf cinzel/Cinzel-Regular.ttf blackopsone/BlackOpsOne-Regular.ttf
exo2/Exo2-Regular.ttf imfellfrenchcanon/IMFeFCrm28P.ttf crimsontext/CrimsonText-Regular.ttf
swankyandmoomoo/SwankyandMooMoo.ttf bowlbyonesc/BowlbyOneSC-Regular.ttf sarpanch/Sarpanch-Regular.ttf
gentiumbookbasic/GenBkBasB.ttf khand/Khand-Light.ttf fanwoodtext/FanwoodText-Italic.ttf
exo/Exo-BlackItalic.ttf mate/Mate-Regular.ttf signika/Signika-Regular.ttf
chelseamarket/ChelseaMarket-Regular.ttf scada/Scada-BoldItalic.ttf geostarfill/GeostarFill-Regular.ttf
anticslab/AnticSlab-Regular.ttf abeezee/ABeeZee-Italic.ttf oxygen/Oxygen-Regular.ttf clara/Clara-Regular.ttf
modak/Modak-Regular.ttf volkhov/Volkhov-Italic.ttf khand/Khand-Medium.ttf fresca/Fresca-Regular.ttf
mavenpro/MavenPro-Bold.ttf adventpro/AdventPro-Light.ttf josefinslab/JosefinSlab-LightItalic.ttf
cardo/Cardo-Italic.ttf seymourone/SeymourOne-Regular.ttf cabincondensed/CabinCondensed-SemiBold.ttf
skranji/Skranji-Bold.ttf sourcesanspro/SourceSansPro-Light.ttf unna/Unna-Regular.ttf lekton/Lekton-Regular.ttf
brunoace/BrunoAce-Regular.ttf antonio/Antonio-Regular.ttf gildadisplay/GildaDisplay-Regular.ttf
karla/Karla-BoldItalic.ttf lato/Lato-BlackItalic.ttf sourcecodepro/SourceCodePro-Bold.ttf
ribeye/Ribeye-Regular.ttf ptserif/PT_Serif-Web-BoldItalic.ttf cabin/Cabin-SemiBoldItalic.ttf
kadwa/Kadwa-Bold.ttf stardosstencil/StardosStencil-Regular.ttf spicyrice/SpicyRice-Regular.ttf
alegreyasans/AlegreyaSans-ExtraBoldItalic.ttf dynalight/Dynalight-Regular.ttf
stintultraexpanded/StintUltraExpanded-Regular.ttf mate/Mate-Italic.ttf cookie/Cookie-Regular.ttf
cambay/Cambay-Italic.ttf roboto/Roboto-Regular.ttf cantoraone/CantoraOne-Regular.ttf karla/Karla-Bold.ttf
kottaone/KottaOne-Regular.ttf quattrocentosans/QuattrocentoSans-Italic.ttf gochihand/GochiHand-Regular.ttf
prata/Prata-Regular.ttf boogaloo/Boogaloo-Regular.ttf rubikone/RubikOne-Regular.ttf tienne/Tienne-Regular.ttf
khula/Khula-ExtraBold.ttf lora/Lora-BoldItalic.ttf oleoscript/OleoScript-Regular.ttf
sourcesanspro/SourceSansPro-Italic.ttf tenorsans/TenorSans-Regular.ttf
playfairdisplaysc/PlayfairDisplaySC-Regular.ttf montserratalternates/MontserratAlternates-Regular.ttf
raleway/Raleway-ExtraLight.ttf alegreyasans/AlegreyaSans-ExtraBold.ttf opensans/OpenSans-Regular.ttf
vollkorn/Vollkorn-BoldItalic.ttf eaglelake/EagleLake-Regular.ttf overlock/Overlock-Black.ttf
lusitana/Lusitana-Regular.ttf exo/Exo-ThinItalic.ttf grandhotel/GrandHotel-Regular.ttf
opensans/OpenSans-Italic.ttf jotione/JotiOne-Regular.ttf imfelldwpica/IMFePIit28P.ttf
vollkorn/Vollkorn-Bold.ttf palanquin/Palanquin-Regular.ttf judson/Judson-Regular.ttf
revalia/Revalia-Regular.ttf corben/Corben-Regular.ttf opensanshebrew/OpenSansHebrew-BoldItalic.ttf
sansation/Sansation-Bold.ttf exo2/Exo2-Italic.ttf adventpro/AdventPro-ExtraLight.ttf nats/NATS-Regular.ttf
merriweathersans/MerriweatherSans-ExtraBoldItalic.ttf sourcecodepro/SourceCodePro-Light.ttf
encodesanscondensed/EncodeSansCondensed-Medium.ttf sourcesanspro/SourceSansPro-Black.ttf
mergeone/MergeOne-Regular.ttf sansation/Sansation-BoldItalic.ttf vidaloka/Vidaloka-Regular.ttf
terminaldosis/TerminalDosis-Bold.ttf deliusunicase/DeliusUnicase-Bold.ttf domine/Domine-Bold.ttf
cantarell/Cantarell-BoldOblique.ttf slabo13px/Slabo13px-Regular.ttf stalemate/Stalemate-Regular.ttf
anaheim/Anaheim-Regular.ttf eczar/Eczar-Bold.ttf newrocker/NewRocker-Regular.ttf
ptserifcaption/PT_Serif-Caption-Web-Regular.ttf judson/Judson-Italic.ttf basic/Basic-Regular.ttf
vesperlibre/VesperLibre-Medium.ttf engagement/Engagement-Regular.ttf
montserratsubrayada/MontserratSubrayada-Bold.ttf averiaseriflibre/AveriaSerifLibre-Bold.ttf
mysteryquest/MysteryQuest-Regular.ttf cousine/Cousine-BoldItalic.ttf teko/Teko-Bold.ttf
roboto/Roboto-LightItalic.ttf archivoblack/ArchivoBlack-Regular.ttf quantico/Quantico-BoldItalic.ttf
averialibre/AveriaLibre-Bold.ttf dinah/Dinah-Regular.ttf exo/Exo-Medium.ttf rosarivo/Rosarivo-Regular.ttf
ekmukta/EkMukta-Light.ttf asap/Asap-BoldItalic.ttf snippet/Snippet.ttf amaticsc/AmaticSC-Regular.ttf
podkova/Podkova-Regular.ttf volkhov/Volkhov-Bold.ttf quattrocento/Quattrocento-Regular.ttf
nothingyoucoulddo/NothingYouCouldDo.ttf caudex/Caudex-BoldItalic.ttf sharetechmono/ShareTechMono-Regular.ttf
oxygenmono/OxygenMono-Regular.ttf hermeneusone/HermeneusOne-Regular.ttf sarina/Sarina-Regular.ttf
passionone/PassionOne-Black.ttf alegreyasanssc/AlegreyaSansSC-LightItalic.ttf ubuntu/Ubuntu-MediumItalic.ttf
karma/Karma-Medium.ttf lakkireddy/LakkiReddy-Regular.ttf sofia/Sofia-Regular.ttf signika/Signika-Bold.ttf
oswald/Oswald-Light.ttf rumraisin/RumRaisin-Regular.ttf anonymouspro/AnonymousPro-Italic.ttf
dhyana/Dhyana-Bold.ttf neuton/Neuton-ExtraLight.ttf alegreya/Alegreya-Black.ttf cabin/Cabin-Bold.ttf
josefinsans/JosefinSans-Bold.ttf arizonia/Arizonia-Regular.ttf merriweathersans/MerriweatherSans-ExtraBold.ttf
vollkorn/Vollkorn-Italic.ttf mrbedford/MrBedfort-Regular.ttf italiana/Italiana-Regular.ttf
gentiumbookbasic/GenBkBasR.ttf
"""
